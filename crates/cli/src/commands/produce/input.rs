//! Reads the input on a thread of its own: a terminal, a pipe or a file, none of which tokio can wait for in general.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::exit::{self, CliError};

/// Most bytes read at once.
const CHUNK: usize = 256 << 10;
/// Chunks read ahead; the thread then waits.
const AHEAD: usize = 4;

/// What is read, in pieces.
pub(super) struct Input {
    chunks: mpsc::Receiver<Result<Bytes, CliError>>,
}

impl Input {
    /// Begins to read `file`, or standard input.
    pub(super) fn open(file: Option<&Path>) -> Result<Input, CliError> {
        let name = file.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let source: Box<dyn Read + Send> = match file {
            None => Box::new(io::stdin()),
            Some(path) => Box::new(File::open(path).map_err(|error| failed(&name, &error))?),
        };
        let (output, chunks) = mpsc::channel(AHEAD);
        let reader = std::thread::Builder::new().name("input".to_owned());
        reader.spawn(move || read(source, &name, &output)).map_err(|error| failed("input", &error))?;
        Ok(Input { chunks })
    }

    /// The next bytes; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, CliError>> {
        self.chunks.recv().await
    }
}

/// Ends with the input, or with whoever takes the chunks. Where that one leaves while a read waits for a terminal or a
/// pipe, the thread ends with the process.
fn read(mut source: Box<dyn Read>, name: &str, output: &mpsc::Sender<Result<Bytes, CliError>>) {
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK);
        let read = match source.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Whoever takes the chunks may be gone.
                let _ = output.blocking_send(Err(failed(name, &error)));
                return;
            }
        };
        chunk.truncate(read);
        // Short reads of a terminal or a slow pipe keep no large buffer alive.
        let chunk = if read < CHUNK / 4 { Bytes::copy_from_slice(&chunk) } else { chunk.freeze() };
        if output.blocking_send(Ok(chunk)).is_err() {
            return;
        }
    }
}

fn failed(name: &str, error: &io::Error) -> CliError {
    CliError::new(
        exit::CANNOT_CREATE,
        format!("reading {name}"),
        error.to_string(),
        "check --file and its rights",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_file_comes_whole_and_in_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let written: Vec<u8> = (0..CHUNK * 3 + 17).map(|index| (index % 251) as u8).collect();
        file.write_all(&written).unwrap();
        let mut input = Input::open(Some(file.path())).unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = input.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == written);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Input::open(Some(Path::new("/nowhere/at-all"))).err().unwrap();
        assert!(error.what.contains("/nowhere/at-all") && error.exit == exit::CANNOT_CREATE);
    }
}
