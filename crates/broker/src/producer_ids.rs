//! Ids for idempotent producers, in stock: new producers start also while no controller lives, at a broker that was
//! just restarted, too.
//!
//! The controllers give out blocks. What is left of them is on disk, and a reserve is taken off there before any of it is
//! given out: a crash wastes some ids and repeats none.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_log::atomic_write;
use holdfast_proto::ApiError;
use holdfast_proto::internal::v1::AllocateProducerIdsRequest;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};

use crate::controllers::Controllers;
use crate::data_dir::{DataDir, crc32c};

/// Ids asked for at once.
const BLOCK: u32 = 1000;
/// Ids taken off the stock on disk at once.
const RESERVE: i64 = 50;
/// The stock is filled up when it is smaller than this.
const LOW: i64 = 500;
/// Pause after the controllers could not fill the stock.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What is on disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stock {
    blocks: Vec<Range<i64>>,
    /// Of the blocks: an id that is given out twice makes a producer's records look like repetitions of another's.
    #[serde(default)]
    crc: Option<u32>,
}

impl Stock {
    /// What was written; `None` if it is damaged.
    fn decode(bytes: &[u8]) -> Option<Stock> {
        let stock: Stock = serde_json::from_slice(bytes).ok()?;
        let possible = stock.blocks.iter().all(|block| 0 <= block.start && block.start <= block.end);
        (possible && stock.crc.is_none_or(|crc| crc == stock.checksum())).then_some(stock)
    }

    fn encode(mut self) -> serde_json::Result<Vec<u8>> {
        self.crc = Some(self.checksum());
        serde_json::to_vec(&self)
    }

    fn checksum(&self) -> u32 {
        crc32c(format!("{:?}", self.blocks).as_bytes())
    }

    fn size(&self) -> i64 {
        self.blocks.iter().fold(0, |size, block| size.saturating_add(block.end - block.start))
    }

    /// The next few ids; empty if there are none.
    fn take(&mut self) -> Range<i64> {
        self.blocks.retain(|block| !block.is_empty());
        let Some(block) = self.blocks.first_mut() else { return 0..0 };
        let end = block.end.min(block.start.saturating_add(RESERVE));
        let taken = block.start..end;
        block.start = end;
        taken
    }
}

#[derive(Debug)]
struct State {
    /// Given out one by one; off the disk already.
    reserve: Range<i64>,
    stock: Stock,
}

/// The stock of one broker.
#[derive(Debug)]
pub(crate) struct ProducerIds {
    dir: Arc<DataDir>,
    controllers: Controllers,
    state: Mutex<State>,
    low: Notify,
}

impl ProducerIds {
    /// Goes on with what the last run left. A file that cannot be read only costs the ids in it.
    pub(crate) fn load(dir: Arc<DataDir>, controllers: Controllers) -> ProducerIds {
        let stock = dir.read("producer-ids.json").ok().flatten();
        let stock = stock.and_then(|bytes| Stock::decode(&bytes)).unwrap_or_default();
        let state = Mutex::new(State { reserve: 0..0, stock });
        ProducerIds { dir, controllers, state, low: Notify::new() }
    }

    /// An id that nobody has.
    pub(crate) async fn next(&self) -> Result<i64, ApiError> {
        let mut state = self.state.lock().await;
        if state.reserve.is_empty() {
            if state.stock.size() == 0 {
                let block = self.ask_controllers().await?;
                state.stock.blocks.push(block);
            }
            let mut stock = state.stock.clone();
            let reserve = stock.take();
            self.save(stock.clone()).await?;
            (state.reserve, state.stock) = (reserve, stock);
            if state.stock.size() < LOW {
                self.low.notify_one();
            }
        }
        state
            .reserve
            .next()
            .ok_or_else(|| ApiError::new(ErrorCode::Internal, "the controllers gave out no producer ids"))
    }

    /// Keeps the stock filled; ends with the runtime.
    pub(crate) async fn keep_filled(&self) {
        loop {
            let size = self.state.lock().await.stock.size();
            if size >= LOW {
                self.low.notified().await;
                continue;
            }
            match self.fill().await {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(%error, "producer ids cannot be had at the moment");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn fill(&self) -> Result<(), ApiError> {
        // Asked before the lock is taken: whoever wants an id meanwhile gets one of the stock.
        let block = self.ask_controllers().await?;
        let mut state = self.state.lock().await;
        let mut stock = state.stock.clone();
        stock.blocks.push(block);
        self.save(stock.clone()).await?;
        state.stock = stock;
        Ok(())
    }

    async fn ask_controllers(&self) -> Result<Range<i64>, ApiError> {
        let call = |mut client: crate::controllers::ControllerClient| async move {
            client.allocate_producer_ids(AllocateProducerIdsRequest { count: BLOCK }).await
        };
        let allocated = self.controllers.call_leader(call).await?.into_inner();
        Ok(allocated.first..allocated.first.saturating_add(i64::from(allocated.count)))
    }

    async fn save(&self, stock: Stock) -> Result<(), ApiError> {
        let dir = Arc::clone(&self.dir);
        let saved = tokio::task::spawn_blocking(move || {
            let bytes = stock.encode()?;
            atomic_write(&*dir.fs(), &dir.file("producer-ids.json"), &bytes)
        });
        match saved.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "the stock of producer ids cannot be written");
                Err(ApiError::new(
                    ErrorCode::StorageFailed,
                    "this broker cannot write its stock of producer ids: ask another",
                ))
            }
            Err(_) => Err(ApiError::new(ErrorCode::Unavailable, "this broker is shutting down: ask another")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_gives_every_id_once() {
        let mut stock = Stock { blocks: vec![0..70, 200..210], crc: None };
        assert_eq!((stock.take(), stock.take(), stock.take(), stock.take()), (0..50, 50..70, 200..210, 0..0));
        assert_eq!(stock.size(), 0);
    }

    #[test]
    fn a_flipped_bit_never_makes_other_ids() {
        let stock = Stock { blocks: vec![3000..4000, 7050..8000], crc: None };
        let good = stock.clone().encode().unwrap();
        assert_eq!(Stock::decode(&good).unwrap().blocks, stock.blocks);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let decoded = Stock::decode(&bad);
            assert!(decoded.is_none_or(|decoded| decoded.blocks == stock.blocks), "bit {bit}");
        }
    }

    #[test]
    fn no_number_on_disk_is_too_large() {
        for range in
            ["{\"start\":-9223372036854775808,\"end\":9223372036854775807}", "{\"start\":5,\"end\":1}"]
        {
            assert!(Stock::decode(format!("{{\"blocks\":[{range}]}}").as_bytes()).is_none());
        }
        let last = "{\"blocks\":[{\"start\":9223372036854775806,\"end\":9223372036854775807}]}";
        let mut stock = Stock::decode(last.as_bytes()).unwrap();
        assert_eq!((stock.size(), stock.take()), (1, i64::MAX - 1..i64::MAX));
    }
}
