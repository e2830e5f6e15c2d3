//! The binary itself, as a user starts it, given what it should not be given: every mistake ends in a documented exit
//! code and three lines on stderr, and changes nothing; processes that run go on, whatever reaches their ports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod commands;
mod configuration;
mod damage;
mod deploy_files;
mod endings;
mod events;
mod folders;
mod garbage;
mod log;
mod process;
mod refused;
mod tls;
mod verify;
