//! The names in a file system: as they are now, and as they would be after a crash.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::parent_of;
use super::Random;
use super::inode::Inode;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Dir,
    File(Arc<Mutex<Inode>>),
}

type Tree = BTreeMap<PathBuf, Node>;

#[derive(Debug)]
enum Change {
    Link { path: PathBuf, node: Node },
    Rename { from: PathBuf, to: PathBuf, node: Node },
    Unlink { path: PathBuf },
}

impl Change {
    fn dir(&self) -> &Path {
        match self {
            Change::Link { path, .. } | Change::Unlink { path } | Change::Rename { to: path, .. } => {
                parent_of(path)
            }
        }
    }

    fn apply(&self, tree: &mut Tree) {
        match self {
            Change::Link { path, node } => {
                tree.insert(path.clone(), node.clone());
            }
            Change::Rename { from, to, node } => {
                let inside: Vec<PathBuf> =
                    tree.keys().filter(|name| name.starts_with(from)).cloned().collect();
                for name in inside {
                    if let (Some(node), Some(name)) = (tree.remove(&name), moved(&name, from, to)) {
                        tree.insert(name, node);
                    }
                }
                tree.insert(to.clone(), node.clone());
            }
            Change::Unlink { path } => tree.retain(|name, _| !name.starts_with(path)),
        }
    }
}

/// The name of what is in `from` once that is called `to`.
fn moved(name: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    name.strip_prefix(from).ok().filter(|rest| !rest.as_os_str().is_empty()).map(|rest| to.join(rest))
}

#[derive(Debug, Default)]
pub(super) struct Names {
    current: Tree,
    durable: Tree,
    unsynced: Vec<Change>,
}

impl Names {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }

    fn is_dir(&self, path: &Path) -> bool {
        is_root(path) || matches!(self.current.get(path), Some(Node::Dir))
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        is_root(path) || self.current.contains_key(path)
    }

    /// The file of that name, if there is one.
    pub(super) fn file(&self, path: &Path) -> io::Result<Option<Arc<Mutex<Inode>>>> {
        match self.current.get(path) {
            None => Ok(None),
            Some(Node::File(inode)) => Ok(Some(Arc::clone(inode))),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Every file that has a name.
    pub(super) fn files(&self) -> Vec<Arc<Mutex<Inode>>> {
        let inode = |node: &Node| match node {
            Node::File(inode) => Some(Arc::clone(inode)),
            Node::Dir => None,
        };
        self.current.values().filter_map(inode).collect()
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<&Path> = dir.ancestors().take_while(|ancestor| !self.is_dir(ancestor)).collect();
        while let Some(path) = missing.pop() {
            if self.exists(path) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            self.change(Change::Link { path: path.to_owned(), node: Node::Dir });
        }
        Ok(())
    }

    pub(super) fn link(&mut self, path: &Path, node: Node) -> io::Result<()> {
        if !self.is_dir(parent_of(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Link { path: path.to_owned(), node });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if parent_of(from) != parent_of(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        match self.current.get(from).cloned() {
            Some(node @ Node::File(_)) => {
                self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), node });
                Ok(())
            }
            Some(Node::Dir) if self.exists(to) => Err(io::ErrorKind::AlreadyExists.into()),
            Some(Node::Dir) => {
                // Names in it that are not synced yet become durable by its new name.
                for change in &mut self.unsynced {
                    let (Change::Link { path, .. }
                    | Change::Unlink { path }
                    | Change::Rename { to: path, .. }) = change;
                    if let Some(name) = moved(path, from, to) {
                        *path = name;
                    }
                }
                let (from, to) = (from.to_owned(), to.to_owned());
                self.change(Change::Rename { from, to, node: Node::Dir });
                Ok(())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?.ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Unlink { path: path.to_owned() });
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        if is_root(dir) || !self.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // What was not durable of its inside goes with it, and is nothing that another folder of this name could bring back.
        self.unsynced.retain(|change| !change.dir().starts_with(dir));
        self.change(Change::Unlink { path: dir.to_owned() });
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        if !self.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let below = self.current.keys().filter(|path| parent_of(path) == dir && !is_root(path));
        Ok(below.filter_map(|path| path.file_name().map(OsString::from)).collect())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        for change in self.unsynced.extract_if(.., |change| change.dir() == dir) {
            change.apply(&mut self.durable);
        }
        Ok(())
    }

    pub(super) fn sync_all(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Goes back to what is durable, plus an arbitrary part of the rest.
    pub(super) fn crash(&mut self, random: &mut Option<Random>) {
        for change in std::mem::take(&mut self.unsynced) {
            if random.as_mut().is_some_and(Random::coin) {
                change.apply(&mut self.durable);
            }
        }
        // A name in a folder whose own name was lost is lost with it. Folders come before what is in them.
        let mut reachable = Tree::new();
        for (path, node) in std::mem::take(&mut self.durable) {
            let parent = parent_of(&path);
            if is_root(parent) || reachable.contains_key(parent) {
                reachable.insert(path, node);
            }
        }
        self.durable = reachable.clone();
        self.current = reachable;
    }
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/") || path == Path::new(".")
}
