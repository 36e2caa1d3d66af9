//! Where a node keeps what must survive it.

use std::{future::Future, io};

use omb_core::{
    peer::{Leadership, RequestId},
    store::{self, Failure, File, Name, Step},
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
    /// fsync of that file.
    fn sync(&self, id: RequestId) -> impl Future<Output = io::Result<()>> + Send;
    /// Renames it into the shared folder.
    fn rename(&self, name: Name) -> impl Future<Output = io::Result<()>> + Send;
    /// fsync of the shared folder.
    fn sync_folder(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Removes a file; one that does not exist is removed.
    fn remove(&self, file: File) -> impl Future<Output = io::Result<()>> + Send;
    /// Opens a stored upload.
    fn open(&self, name: Name) -> impl Future<Output = io::Result<Self::Reading>> + Send;
}

/// Performs any step but [`Step::Write`], which needs a body.
pub(super) async fn perform(disk: &impl Disk, step: Step) -> store::Input {
    let done = match step {
        Step::List => {
            return match disk.list().await {
                Ok(Listed { temporary, shared }) => store::Input::Listed { temporary, shared },
                Err(error) => failed(step, &error),
            };
        }
        Step::Write(_) => Err(io::Error::other("a body is written as it comes")),
        Step::Sync(id) => disk.sync(id).await,
        Step::Rename(name) => disk.rename(name).await,
        Step::SyncFolder(_) => disk.sync_folder().await,
        Step::Remove(file) => disk.remove(file).await,
    };
    match done {
        Ok(()) => store::Input::Done(step),
        Err(error) => failed(step, &error),
    }
}

pub(super) fn failed(step: Step, error: &io::Error) -> store::Input {
    store::Input::Failed { step, failure: Failure::Disk(error.to_string()) }
}
