use std::sync::Arc;
use std::time::Duration;

use holdfast_core::record_batch::RecordBatchBuilder;
use holdfast_core::{ErrorCode, ProducerId};

use super::*;
use crate::error::Outcome;
use crate::producer::completion::Completion;
use crate::producer::lane::OpenBatch;
use crate::producer::stats::Ledger;

fn producer(id: i64, base_sequence: i32) -> ProducerRef {
    ProducerRef { id: ProducerId(id), epoch: 0, base_sequence }
}

fn push(window: &mut Window, records: u32) -> Arc<Completion> {
    let ledger = Arc::new(Ledger::new(1 << 20, None));
    let mut ticket = Ticket::new(ledger, 0);
    let mut builder = RecordBatchBuilder::new();
    for _ in 0..records {
        builder.push(0, None, Some(b"value"), &[]).unwrap();
        ticket.add(0);
    }
    let completion = ticket.completion().clone();
    window.push(OpenBatch::new(builder, ticket), Compression::None).unwrap();
    completion
}

fn send_all(window: &mut Window) {
    window.unsent().for_each(|flight| flight.outstanding = true);
}

fn places(window: &Window) -> Vec<(i64, i32)> {
    window
        .flights()
        .map(|flight| flight.batch.header().producer.unwrap())
        .map(|producer| (producer.id.0, producer.base_sequence))
        .collect()
}

fn refused() -> ApiError {
    ApiError::new(ErrorCode::CorruptBatch, "refused")
}

async fn outcome(completion: &Completion) -> Outcome {
    completion.wait().await.unwrap_err().outcome
}

#[tokio::test]
async fn sequence_numbers_follow_and_wrap() {
    let mut window = Window::new(producer(1, i32::MAX - 1));
    for records in [2, 3, 1] {
        push(&mut window, records);
    }
    assert_eq!(places(&window), [(1, i32::MAX - 1), (1, 0), (1, 3)]);
}

#[tokio::test]
async fn a_cut_leaves_order_and_numbers() {
    let mut window = Window::new(producer(1, 0));
    let _cells: Vec<_> = (0..3).map(|_| push(&mut window, 2)).collect();
    send_all(&mut window);
    window.cut(true);
    assert_eq!(window.unsent().map(|flight| flight.serial).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(window.flights().all(|flight| flight.unresolved));
    assert_eq!(places(&window), [(1, 0), (1, 2), (1, 4)]);
}

#[tokio::test]
async fn behind_a_certain_refusal_the_rest_gets_new_numbers_under_a_new_id() {
    let mut window = Window::new(producer(1, 0));
    let cells: Vec<_> = (0..3).map(|_| push(&mut window, 2)).collect();
    send_all(&mut window);
    let (first, is_first) = window.outstanding(0).unwrap();
    assert!(is_first);
    first.outstanding = false;
    first.refusal = Some(refused());
    assert!(window.give_up_refused());
    assert_eq!(outcome(&cells[0]).await, Outcome::Failed);
    assert!(!window.has_producer() && !cells[1].is_done() && !cells[2].is_done());
    window.renumber(producer(9, 0)).unwrap();
    assert_eq!(places(&window), [(9, 0), (9, 2)]);
    push(&mut window, 1);
    assert_eq!(places(&window)[2], (9, 4));
}

#[tokio::test]
async fn behind_an_uncertain_refusal_what_may_be_stored_is_given_up_too() {
    let mut window = Window::new(producer(1, 0));
    let cells: Vec<_> = (0..2).map(|_| push(&mut window, 2)).collect();
    send_all(&mut window);
    window.cut(true);
    let unsent = push(&mut window, 2);
    window.unsent().next().unwrap().refusal = Some(refused());
    assert!(window.give_up_refused());
    assert_eq!(outcome(&cells[0]).await, Outcome::Unknown);
    assert_eq!(outcome(&cells[1]).await, Outcome::Unknown);
    assert!(!unsent.is_done());
    window.renumber(producer(9, 0)).unwrap();
    assert_eq!(places(&window), [(9, 0)]);
}

#[tokio::test]
async fn a_certain_refusal_of_the_only_batch_frees_its_number() {
    let mut window = Window::new(producer(1, 0));
    push(&mut window, 5);
    window.unsent().next().unwrap().refusal = Some(refused());
    assert!(window.give_up_refused());
    assert!(window.has_producer());
    push(&mut window, 1);
    assert_eq!(places(&window), [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_batch_is_resent_only_for_the_sake_of_a_younger_one() {
    let mut window = Window::new(producer(1, 0));
    let old = push(&mut window, 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let young = push(&mut window, 1);
    send_all(&mut window);
    window.cut(true);
    let now = Instant::now();
    assert!(!window.expire(now - Duration::from_millis(500), refused));
    assert_eq!(outcome(&old).await, Outcome::Unknown);
    assert_eq!((window.len(), young.is_done()), (2, false));
    assert!(window.expire(now, refused));
    assert_eq!(outcome(&young).await, Outcome::Unknown);
    assert!(window.is_empty() && !window.has_producer());
}

#[tokio::test(start_paused = true)]
async fn an_expired_batch_that_never_left_has_failed() {
    let mut window = Window::new(producer(1, 0));
    let cells: Vec<_> = (0..2).map(|_| push(&mut window, 1)).collect();
    send_all(&mut window);
    window.cut(false); // never connected
    assert!(window.expire(Instant::now(), refused));
    for cell in &cells {
        assert_eq!(outcome(cell).await, Outcome::Failed);
    }
}
