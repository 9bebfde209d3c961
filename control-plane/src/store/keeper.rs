//! Keeps the memory of a running store current.
//!
//! Guarantees: a disk that is slow, hangs or fails never holds up a change of the configuration. While it works it has
//! what is in force a second later. What cannot be saved is tried again, and an older file is removed when that does not
//! help, so that no restart takes it for what was in force last.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::{in_force::InForce, memory::Memory};

/// How long it rests after a save: of many changes the newest counts.
const PAUSE: Duration = Duration::from_secs(1);
/// After how long a save that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// After how many failures the older file is removed.
const TRIES: u32 = 3;

/// Saves the newest of what it is told until the sender is gone, and then what is not saved yet.
pub async fn keep(memory: Memory, newest: watch::Receiver<Arc<InForce>>) {
    pace(Keeper::new(memory), Keeper::save, newest).await;
}

/// Calls `save` with the newest, at most once in [`PAUSE`], again after a failure, and once more, with `true`, for what is
/// not saved when the sender is gone. `save` tells whether there is nothing to try again.
async fn pace<S: Send + 'static>(
    mut state: S,
    save: fn(&mut S, &InForce, bool) -> bool,
    mut newest: watch::Receiver<Arc<InForce>>,
) {
    let (mut is_saved, mut is_last) = (true, false);
    while !is_saved || (!is_last && newest.changed().await.is_ok()) {
        let in_force = Arc::clone(&newest.borrow_and_update());
        let saving = tokio::task::spawn_blocking(move || {
            let is_saved = save(&mut state, &in_force, is_last);
            (state, is_saved)
        });
        let Ok(saved) = saving.await else {
            tracing::error!("last good versions of objects are not saved any more; please report this defect");
            return;
        };
        (state, is_saved) = saved;
        if is_last {
            return;
        }
        let pause = if is_saved { PAUSE } else { RETRY };
        let told = async {
            while newest.changed().await.is_ok() {
                is_saved = false;
            }
        };
        is_last = timeout(pause, told).await.is_ok();
    }
}

struct Keeper {
    memory: Memory,
    failures: u32,
    /// What was logged of the failures, so that each reason is logged once.
    told: String,
}

impl Keeper {
    fn new(memory: Memory) -> Self {
        Self { memory, failures: 0, told: String::new() }
    }

    /// Saves what is in force. True when there is nothing to try again.
    fn save(&mut self, in_force: &InForce, is_last: bool) -> bool {
        let saved = self.memory.save(in_force);
        let path = self.memory.path().display();
        let Err(error) = saved else {
            if self.failures > 0 {
                tracing::info!(%path, "the last good versions of objects are saved again");
            }
            (self.failures, self.told) = (0, String::new());
            return true;
        };
        self.failures += 1;
        let is_too_large = error.kind() == io::ErrorKind::FileTooLarge;
        let restart = if is_too_large || is_last || self.failures >= TRIES {
            self.forget()
        } else {
            "it is tried again; until then a restart would keep earlier versions of what is broken then".to_owned()
        };
        let problem = format!("{error}: {restart}");
        if problem != self.told {
            tracing::error!(%path, %error, "the last good versions of objects cannot be saved: {restart}");
            self.told = problem;
        }
        is_too_large
    }

    /// Removes what was saved before. Returns what a restart would do.
    fn forget(&self) -> String {
        match self.memory.forget() {
            Ok(()) => {
                "earlier ones are removed; a restart would go by the files alone, and have nothing in force of what is \
                 broken then"
                    .to_owned()
            }
            Err(error) => format!(
                "earlier ones cannot be removed either ({error}), and a restart would keep them in force for what is \
                 broken then: remove the file before one"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::mpsc::{UnboundedSender, unbounded_channel},
        time::{Instant, sleep},
    };

    use super::*;
    use crate::{
        model::ObjectId,
        source::{Change, Document},
        store::Store,
    };

    /// What a save is told: when, the number of what is in force, and whether it is the last.
    type Saved = (Instant, u64, bool);

    fn numbered(n: u64) -> Arc<InForce> {
        let mut in_force = InForce::default();
        in_force.gone.insert(id(), n);
        Arc::new(in_force)
    }

    fn number(in_force: &InForce) -> u64 {
        in_force.generation(&id())
    }

    fn id() -> ObjectId {
        ObjectId::new("Service", "default", "a")
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_changes_the_newest_is_saved_once_a_second_and_at_the_end() {
        let (saves, mut saved) = unbounded_channel();
        let (sender, newest) = watch::channel(Arc::default());
        let record = |saves: &mut UnboundedSender<Saved>, in_force: &InForce, is_last: bool| {
            saves.send((Instant::now(), number(in_force), is_last)).is_ok()
        };
        let pacing = tokio::spawn(pace(saves, record, newest));
        for n in 1..=250 {
            sender.send_replace(numbered(n));
            sleep(Duration::from_millis(10)).await;
        }
        drop(sender);
        pacing.await.unwrap();
        let mut all = Vec::new();
        saved.recv_many(&mut all, 1000).await;
        let (last, paced) = all.split_last().unwrap();
        assert_eq!((last.1, last.2), (250, true), "{all:?}");
        assert_eq!(paced.len(), 3, "in two and a half seconds: {all:?}");
        assert!(paced.windows(2).all(|two| two[1].0 - two[0].0 >= PAUSE && two[0].1 < two[1].1), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_saved_is_tried_again_without_another_change() {
        let (saves, mut saved) = unbounded_channel();
        let (sender, newest) = watch::channel(Arc::default());
        let fail_twice = |(saves, left): &mut (UnboundedSender<Saved>, u32), in_force: &InForce, is_last: bool| {
            saves.send((Instant::now(), number(in_force), is_last)).unwrap();
            *left = left.saturating_sub(1);
            *left == 0
        };
        tokio::spawn(pace((saves, 3), fail_twice, newest));
        sender.send_replace(numbered(7));
        let mut times = Vec::new();
        for _ in 0..3 {
            let (at, n, is_last) = timeout(RETRY * 5, saved.recv()).await.expect("another try").unwrap();
            assert_eq!((n, is_last), (7, false));
            times.push(at);
        }
        assert!(times.windows(2).all(|two| two[1] - two[0] >= RETRY), "{times:?}");
        let silent = timeout(RETRY * 5, saved.recv()).await;
        assert!(silent.is_err(), "what is saved is not saved again: {silent:?}");
    }

    fn in_force(text: &str) -> InForce {
        let mut store = Store::new("mesh.local");
        store.take("files", Document { origin: "mesh/a.yaml".into(), text: Ok(text.into()) }.put());
        store.take("files", Change::Complete);
        store.commit();
        store.unsaved().expect("something new is in force")
    }

    const A: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";

    #[test]
    fn a_file_that_is_older_than_what_is_in_force_is_not_believed_by_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let memory = || Memory::new(state.path(), "mesh".as_ref());
        // A draft's name would be too long for a file's, and the name itself is not.
        let stuck = || memory().named(&format!("{}.json", "x".repeat(245)));
        let is_believed = |memory: Memory| !memory.load().objects.is_empty();
        let newer = in_force(&A.replace("80", "81"));
        let save_older = || {
            memory().save(&in_force(A)).unwrap();
            std::fs::copy(memory().path(), stuck().path()).unwrap();
        };
        save_older();
        let mut keeper = Keeper::new(stuck());
        for _ in 1..TRIES {
            assert!(!keeper.save(&newer, false), "it is tried again");
            assert!(is_believed(stuck()), "a passing fault loses nothing");
            assert!(keeper.told.contains("a restart would keep earlier versions"), "{}", keeper.told);
        }
        assert!(!keeper.save(&newer, false) && !is_believed(stuck()));
        assert!(keeper.told.contains("have nothing in force of what is broken"), "{}", keeper.told);

        save_older();
        Keeper::new(stuck()).save(&newer, true);
        assert!(!is_believed(stuck()), "nobody tries again after the end");

        let mut keeper = Keeper::new(memory().limited_to(10));
        assert!(keeper.save(&newer, false), "what is too large stays so");
        assert!(!is_believed(memory()) && keeper.told.contains("larger than"), "{}", keeper.told);
        keeper.memory = memory();
        assert!(keeper.save(&newer, false) && is_believed(memory()) && keeper.told.is_empty());
    }
}
