use std::{
    collections::HashMap,
    mem,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    sync::Arc,
    thread,
};

use tokio::sync::{mpsc, watch};

use super::*;
use crate::process::listeners::Listeners;

/// A running sidecar, as far as others see it here.
struct Old {
    sockets: Vec<Arc<TcpListener>>,
    taken: mpsc::Receiver<Taken>,
    _ready: watch::Sender<bool>,
}

const DECLARED: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn old(state_dir: &Path, mut listeners: Listeners, handed_on: Option<Socket>) -> Old {
    let (_, sockets) = listeners.bind(DECLARED.into(), 1).unwrap();
    let (taken, asked) = mpsc::channel(1);
    let (sender, ready) = watch::channel(true);
    Offer { listeners: listeners.finish().0, ready, taken }.start(state_dir, handed_on).unwrap();
    Old { sockets, taken: asked, _ready: sender }
}

#[test]
fn one_after_another_takes_the_place_and_nobody_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = old(folder.path(), Listeners::default(), None);
    let address = running.sockets[0].local_addr().unwrap();
    let mut callers = Vec::new();
    for _ in 0..3 {
        // One that does not get as far as serving changes nothing.
        drop(find(folder.path()).unwrap().unwrap());
        callers.push(TcpStream::connect(address).unwrap());
        let mut before = find(folder.path()).unwrap().unwrap();
        assert!(before.ready && running.taken.try_recv().is_err());
        let (listeners, socket) = (mem::take(&mut before.listeners), before.socket.take());
        let serving = thread::spawn(move || before.serving(vec!["name".into()]));
        let Taken { names, done } = running.taken.blocking_recv().unwrap();
        assert_eq!(names, ["name"]);
        assert!(!serving.is_finished(), "it waits until the old one has let go");
        done.send(()).unwrap();
        serving.join().unwrap();
        running = old(folder.path(), Listeners::new(listeners), socket);
        callers.push(TcpStream::connect(address).unwrap());
    }
    running.sockets[0].set_nonblocking(false).unwrap();
    for caller in callers {
        let (_, peer) = running.sockets[0].accept().unwrap();
        assert_eq!(peer, caller.local_addr().unwrap(), "whoever waits is not forgotten");
    }
}

#[test]
fn two_at_once_come_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = old(folder.path(), Listeners::default(), None);
    let mut first = find(folder.path()).unwrap().unwrap();
    let state_dir = folder.path().to_owned();
    let second = thread::spawn(move || find(&state_dir).unwrap().unwrap());
    let (listeners, socket) = (mem::take(&mut first.listeners), first.socket.take());
    let serving = thread::spawn(move || first.serving(Vec::new()));
    running.taken.blocking_recv().unwrap().done.send(()).unwrap();
    serving.join().unwrap();
    let next = old(folder.path(), Listeners::new(listeners), socket);
    let second = second.join().unwrap();
    let passed = &second.listeners.values().next().unwrap()[0];
    assert_eq!(passed.local_addr().unwrap(), next.sockets[0].local_addr().unwrap());
}

#[test]
fn a_process_that_dies_meanwhile_leaves_everything_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    assert!(find(folder.path()).unwrap().is_none(), "none runs");
    let (connection, gone) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let before = Before { connection, process: 1, listeners: HashMap::new(), socket: None, ready: true };
    drop(gone);
    before.serving(Vec::new());
    // What it leaves behind is the name of a socket at which nobody listens.
    drop(UnixListener::bind(path(folder.path())).unwrap());
    assert!(find(folder.path()).unwrap().is_none());
}

#[test]
fn one_that_ends_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let running = old(folder.path(), Listeners::default(), None);
    drop(running.taken);
    let refused = find(folder.path()).err().unwrap().to_string();
    assert!(refused.contains("it is ending already"), "{refused}");
}
