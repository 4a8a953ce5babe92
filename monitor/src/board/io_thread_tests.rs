use super::*;
use crate::board::{BoardConfig, MachineRequest};
use crate::config::SerialSpec;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

struct Signal(Mutex<Sender<Instant>>);

impl Kick for Signal {
    fn kick(&self) {
        let _ = self.0.lock().unwrap().send(Instant::now());
    }
}

struct Rig {
    board: Arc<Mutex<Board>>,
    io: IoHandle,
    kicks: Receiver<Instant>,
    stop: Arc<StopHandle>,
}

fn rig(ports: Vec<(HostPort, SerialBackend)>) -> Rig {
    let config = BoardConfig {
        memory: 64 << 20,
        serial_ports: 1,
        debug_exit: false,
        ..BoardConfig::default()
    };
    let board = Arc::new(Mutex::new(Board::new(config, Arc::new(VmClock::new()))));
    let (sender, kicks) = channel();
    let stop = Arc::new(StopHandle::new().unwrap());
    let kick = Arc::new(Signal(Mutex::new(sender)));
    let io = IoThread::spawn(Arc::clone(&board), kick, ports, Arc::clone(&stop), None).unwrap();
    Rig {
        board,
        io,
        kicks,
        stop,
    }
}

impl Rig {
    /// As the processor's thread does it.
    fn out(&self, port: u16, value: u8) {
        let mut board = lock(&self.board);
        board.port_out(port, 1, value.into());
        self.io.wake_before(board.next_deadline());
    }
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ring3-io-{}-{name}", std::process::id()))
}

#[test]
fn timer_interrupts_arrive_on_time() {
    let rig = rig(Vec::new());
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfe),
    ] {
        rig.out(port, value);
    }
    // Counter 0, mode 2, 1193 pulses: 1 kHz.
    for (port, value) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)] {
        rig.out(port, value);
    }
    let start = Instant::now();
    for i in 0..50 {
        // The first edge comes with the programming itself: that access shows it, no kick does.
        if i > 0 {
            rig.kicks
                .recv_timeout(Duration::from_secs(5))
                .expect("an interrupt");
        }
        let mut board = lock(&rig.board);
        while board.interrupt_pending() {
            assert_eq!(board.acknowledge(), 0x20);
            board.port_out(0x20, 1, 0x20);
        }
        rig.io.wake_before(board.next_deadline());
    }
    let took = start.elapsed();
    assert!(took > Duration::from_millis(20), "{took:?}");
}

#[test]
fn output_reaches_a_file_without_being_asked_for() {
    let path = temporary("file");
    let backend = SerialBackend::open(&SerialSpec::File(path.clone()), false)
        .unwrap()
        .unwrap();
    let rig = rig(vec![(HostPort::Serial(0), backend)]);
    for byte in b"hello" {
        rig.out(0x3f8, *byte);
    }
    let patience = Instant::now() + Duration::from_secs(5);
    while std::fs::read(&path).unwrap() != b"hello" {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(1));
    }
    for i in 0..200_000u32 {
        // The transmitter may be busy while the thread is away: wait as a driver does.
        while lock(&rig.board).port_in(0x3fd, 1) & 0x20 == 0 {
            std::thread::yield_now();
        }
        rig.out(0x3f8, i as u8);
    }
    rig.io.finish().unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap().len(),
        200_005,
        "nothing is lost at the end"
    );
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_stuck_reader_holds_the_transmitter_and_not_the_thread() {
    let path = temporary("stuck");
    let backend = SerialBackend::open(&SerialSpec::Unix(path.clone()), false)
        .unwrap()
        .unwrap();
    let rig = rig(vec![(HostPort::Serial(0), backend)]);
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"z").unwrap();
    rig.kick_free_wait(|board| board.port_in(0x3fd, 1) & 1 != 0);
    let mut sent = 0;
    let busy = loop {
        rig.out(0x3f8, b'x');
        sent += 1;
        if lock(&rig.board).port_in(0x3fd, 1) & 0x20 == 0 {
            std::thread::sleep(Duration::from_millis(20));
            if lock(&rig.board).port_in(0x3fd, 1) & 0x20 == 0 {
                break true;
            }
        }
        if sent > 4 << 20 {
            break false;
        }
    };
    assert!(busy, "the guest sees back-pressure");
    rig.stop.request(StopReason::Signal(15));
    rig.kicks
        .recv_timeout(Duration::from_secs(5))
        .expect("a stop gets through");
    assert_eq!(
        lock(&rig.board).take_request(),
        Some(MachineRequest::Stop(StopReason::Signal(15)))
    );
    let begin = Instant::now();
    rig.io.finish().unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "a signal cuts the wait for the reader short"
    );
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(!got.is_empty() && got.iter().all(|&b| b == b'x'));
}

impl Rig {
    fn kick_free_wait(&self, condition: impl Fn(&mut Board) -> bool) {
        let patience = Instant::now() + Duration::from_secs(5);
        while !condition(&mut lock(&self.board)) {
            assert!(Instant::now() < patience);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn input_from_a_peer_reaches_the_receiver_and_interrupts() {
    let path = temporary("input");
    let backend = SerialBackend::open(&SerialSpec::Unix(path.clone()), false)
        .unwrap()
        .unwrap();
    let rig = rig(vec![(HostPort::Serial(0), backend)]);
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0)] {
        rig.out(port, value);
    }
    rig.out(0x3fc, 0x08);
    rig.out(0x3f9, 0x01);
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"k").unwrap();
    rig.kicks
        .recv_timeout(Duration::from_secs(5))
        .expect("the receiver's interrupt");
    let mut board = lock(&rig.board);
    assert_eq!(board.acknowledge(), 0x24);
    assert_eq!(board.port_in(0x3f8, 1), u32::from(b'k'));
    drop(board);
}

#[test]
fn the_consoles_own_keys_do_not_reach_the_guest() {
    let (keys, user) = nix::unistd::pipe().unwrap();
    let (screen, output) = nix::unistd::pipe().unwrap();
    let rig = rig(vec![(
        HostPort::Serial(0),
        SerialBackend::console(keys, output),
    )]);
    nix::unistd::write(&user, b"a\x01hb\x01x").unwrap();
    rig.kicks
        .recv_timeout(Duration::from_secs(5))
        .expect("a stop");
    let mut board = lock(&rig.board);
    assert_eq!(
        board.take_request(),
        Some(MachineRequest::Stop(StopReason::Quit))
    );
    let got = [board.port_in(0x3f8, 1), board.port_in(0x3f8, 1)];
    assert_eq!(got, [u32::from(b'a'), u32::from(b'b')]);
    assert_eq!(board.port_in(0x3fd, 1) & 1, 0, "nothing else arrived");
    drop(board);
    rig.io.finish().unwrap();
    let mut shown = Vec::new();
    std::fs::File::from(screen).read_to_end(&mut shown).unwrap();
    assert!(shown.starts_with(HELP), "{shown:?}");
}

#[test]
fn a_reader_that_leaves_ends_the_run() {
    let (keys, _user) = nix::unistd::pipe().unwrap();
    let (screen, output) = nix::unistd::pipe().unwrap();
    let rig = rig(vec![(
        HostPort::Serial(0),
        SerialBackend::console(keys, output),
    )]);
    drop(screen);
    rig.out(0x3f8, b'x');
    rig.kicks
        .recv_timeout(Duration::from_secs(5))
        .expect("a stop");
    let request = lock(&rig.board).take_request();
    assert_eq!(
        request,
        Some(MachineRequest::Stop(StopReason::Signal(libc::SIGPIPE)))
    );
}
