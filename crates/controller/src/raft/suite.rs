//! openraft's own tests of a store, on ours.

use std::sync::Arc;

use holdfast_log::RealFs;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::room::Room;
use super::state_machine::StateMachine;
use super::types::{StorageError, TypeConfig};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let fs = Arc::new(RealFs);
        let log = LogStore::open(fs.clone(), &dir.path().join("journal"), Room::new(), ()).unwrap();
        let state = StateMachine::open(fs, dir.path(), log.purged(), Room::new(), Arc::new(())).unwrap();
        Ok((dir, log, state))
    }
}

#[test]
fn openraft_suite_passes_on_our_stores() {
    Suite::test_all(Builder).unwrap();
}
