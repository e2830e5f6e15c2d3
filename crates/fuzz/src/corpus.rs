//! What mutation begins with: inputs that are valid.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// An input: files by their path, relative to a folder that they are all in. Decoders of plain bytes get a single one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// Their contents.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Input {
    /// A single file.
    pub fn of(name: &str, bytes: impl Into<Vec<u8>>) -> Input {
        Input { files: BTreeMap::from([(name.to_owned(), bytes.into())]) }
    }

    /// The bytes of a single file.
    pub fn bytes(&self) -> &[u8] {
        self.files.values().next().map(Vec::as_slice).unwrap_or_default()
    }

    /// Bytes of all files.
    pub fn len(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    /// Whether there is not a byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the files into a folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }
}

/// The committed inputs of a target, each with its name, in a fixed order: a file, or a folder with files.
///
/// # Errors
/// What the file system says; a target without committed inputs has none.
pub fn committed(target: &str) -> io::Result<Vec<(String, Input)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs = Vec::new();
    for path in entries(&folder)? {
        let name = name_of(&path);
        let mut input = Input::default();
        if path.is_dir() {
            collect(&path, "", &mut input)?;
        } else {
            input.files.insert(name.clone(), std::fs::read(&path)?);
        }
        inputs.push((name, input));
    }
    Ok(inputs)
}

fn collect(folder: &Path, prefix: &str, input: &mut Input) -> io::Result<()> {
    for path in entries(folder)? {
        let name = format!("{prefix}{}", name_of(&path));
        if path.is_dir() {
            collect(&path, &format!("{name}/"), input)?;
        } else {
            input.files.insert(name, std::fs::read(&path)?);
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
