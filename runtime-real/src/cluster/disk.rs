//! Where a node keeps what must survive it.

use std::{future::Future, io};

use omb_core::{
    peer::{Leadership, RequestId},
    store::{self, Failure, Name, Step},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// What lies in the two folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Names in the folder of temporaries.
    pub temporary: Vec<String>,
    /// Names and sizes in the shared one.
    pub shared: Vec<(String, u64)>,
}

/// Files of one node: uploads in the making, stored uploads, and the newest leadership.
pub trait Disk: Clone + Send + Sync + 'static {
    /// A temporary file that is being written.
    type Writing: AsyncWrite + Unpin + Send + 'static;
    /// A stored upload that is being read.
    type Reading: AsyncRead + Unpin + Send + 'static;

    /// The leadership that was last made durable; none yet is [`Leadership::default`].
    fn restore(&self) -> impl Future<Output = io::Result<Leadership>> + Send;
    /// Makes a leadership durable: once this returns it survives everything, before it the old one does.
    fn persist(&self, leadership: Leadership) -> impl Future<Output = io::Result<()>> + Send;
    /// Lists both folders. Creates what is missing.
    fn list(&self) -> impl Future<Output = io::Result<Listed>> + Send;
    /// Creates, or empties, the temporary file of an upload.
    fn create(&self, id: RequestId) -> impl Future<Output = io::Result<Self::Writing>> + Send;
    /// Performs steps one after the other: fsync of an upload's temporary file, its renaming into the shared folder, fsync
    /// of that folder, removal of a file (one that does not exist is removed). Of one that fails it says which and why, and
    /// those behind it are left undone. [`Step::List`] and [`Step::Write`] are not among them.
    fn perform(&self, steps: Vec<Step>) -> impl Future<Output = Result<(), (Step, io::Error)>> + Send;
    /// Opens a stored upload.
    fn open(&self, name: Name) -> impl Future<Output = io::Result<Self::Reading>> + Send;
}

/// Performs any steps but [`Step::Write`], which needs a body.
pub(super) async fn perform(disk: &impl Disk, steps: Vec<Step>) -> store::Input {
    if let [list @ Step::List] = &steps[..] {
        return match disk.list().await {
            Ok(Listed { temporary, shared }) => store::Input::Listed { temporary, shared },
            Err(error) => failed(list.clone(), &error),
        };
    }
    let last = steps.last().cloned().expect("there is a step");
    match disk.perform(steps).await {
        Ok(()) => store::Input::Done(last),
        Err((step, error)) => failed(step, &error),
    }
}

pub(super) fn failed(step: Step, error: &io::Error) -> store::Input {
    store::Input::Failed { step, failure: Failure::Disk(error.to_string()) }
}
