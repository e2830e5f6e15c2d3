//! What a broker cannot go on after: told to whoever runs it, once.

use tokio::sync::watch;

/// Where it is told.
#[derive(Debug, Clone)]
pub(crate) struct Fatal {
    problem: watch::Sender<Option<String>>,
}

impl Fatal {
    pub(crate) fn new() -> Fatal {
        Fatal { problem: watch::Sender::new(None) }
    }

    /// The process has to end. The first problem told is the one that counts.
    pub(crate) fn report(&self, problem: String) {
        self.problem.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert(problem);
            first
        });
    }

    /// Waits for a problem.
    pub(crate) async fn wait(&self) -> String {
        let mut problem = self.problem.subscribe();
        match problem.wait_for(Option::is_some).await.map(|problem| problem.clone()) {
            Ok(Some(problem)) => problem,
            // Cannot be: this very value holds the sender.
            _ => std::future::pending().await,
        }
    }

    /// Held by a thread as long as it lives: without it a broker would look alive and serve nothing.
    pub(crate) fn watch_thread(&self) -> ThreadWatch {
        ThreadWatch { fatal: self.clone() }
    }
}

/// Tells of a panic of the thread that holds it.
#[derive(Debug)]
pub(crate) struct ThreadWatch {
    fatal: Fatal,
}

impl Drop for ThreadWatch {
    fn drop(&mut self) {
        let thread = std::thread::current();
        if std::thread::panicking() {
            let name = thread.name().unwrap_or("without a name");
            self.fatal.report(format!(
                "thread {name} met a defect, see the panic in its log: restart it, and report it"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_watched_thread_is_told() {
        let fatal = Fatal::new();
        let watched = fatal.watch_thread();
        let ended = std::thread::Builder::new().name("shard-7".to_owned()).spawn(move || {
            let _watched = watched;
            panic!("on purpose");
        });
        assert!(ended.unwrap().join().is_err());
        assert!(fatal.wait().await.contains("shard-7"));
    }
}
