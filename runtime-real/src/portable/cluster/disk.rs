//! The storage for what must survive a node's process.

use std::{collections::BTreeMap, future::Future, io};

use omb_cluster::{
    peer::{Leadership, RequestId},
    store::{self, Entry, Failure, Name, Step},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// The content of the two folders, and of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Names in the folder of temporaries.
    pub temporary: Vec<String>,
    /// Names and sizes in the shared one.
    pub shared: Vec<(String, u64)>,
    /// Uploads that the journal remembers.
    pub recorded: BTreeMap<RequestId, Entry>,
}

/// Files of one node: uploads in progress, stored uploads, the journal of them, and the newest leadership.
pub trait Disk: Clone + Send + Sync + 'static {
    /// A temporary file that is being written.
    type Writing: AsyncWrite + Unpin + Send + 'static;
    /// A stored upload that is being read.
    type Reading: AsyncRead + Unpin + Send + 'static;

    /// The leadership that was last made durable; [`Leadership::default`] if there is none yet.
    fn restore(&self) -> impl Future<Output = io::Result<Leadership>> + Send;
    /// Makes a leadership durable: once this returns it survives everything, before that the old one does.
    fn persist(&self, leadership: Leadership) -> impl Future<Output = io::Result<()>> + Send;
    /// Lists both folders, and reads the journal, which is durable from then on. Creates what is missing.
    fn list(&self) -> impl Future<Output = io::Result<Listed>> + Send;
    /// Creates, or empties, the temporary file of an upload.
    fn create(&self, id: RequestId) -> impl Future<Output = io::Result<Self::Writing>> + Send;
    /// Performs steps in sequence: fsync of an upload's temporary file, its renaming into the shared folder, fsync of
    /// that folder, removal of a file (one that does not exist counts as removed), appending to the journal. Stops at a
    /// step that fails, and returns it with the reason. [`Step::List`], [`Step::Write`] and [`Step::Check`] are not
    /// among them.
    fn perform(&self, steps: Vec<Step>) -> impl Future<Output = Result<(), (Step, io::Error)>> + Send;
    /// The size of each plain file of that name in the shared folder; `None` if there is none.
    fn check(&self, names: Vec<Name>) -> impl Future<Output = io::Result<Vec<(Name, Option<u64>)>>> + Send;
    /// Opens a stored upload. [`io::ErrorKind::NotFound`] if there is no such file; [`io::ErrorKind::InvalidInput`] if
    /// it is not a plain file.
    fn open(&self, name: Name) -> impl Future<Output = io::Result<Self::Reading>> + Send;
}

/// Performs any steps except [`Step::Write`], which needs a body.
pub(super) async fn perform(disk: &impl Disk, steps: Vec<Step>) -> store::Input {
    if let [list @ Step::List] = &steps[..] {
        return match disk.list().await {
            Ok(Listed { temporary, shared, recorded }) => store::Input::Listed { temporary, shared, recorded },
            Err(error) => failed(list.clone(), &error),
        };
    }
    if let [check @ Step::Check(names)] = &steps[..] {
        return match disk.check(names.clone()).await {
            Ok(found) => store::Input::Checked(found),
            Err(error) => failed(check.clone(), &error),
        };
    }
    let last = steps.last().cloned().expect("there is a step");
    match disk.perform(steps).await {
        Ok(()) => store::Input::Done(last),
        Err((step, error)) => failed(step, &error),
    }
}

pub(super) fn failed(step: Step, error: &io::Error) -> store::Input {
    let why = error.to_string();
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    store::Input::Failed { step, failure: if full { Failure::Full(why) } else { Failure::Disk(why) } }
}
