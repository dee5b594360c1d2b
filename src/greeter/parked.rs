//! The TLS engines of clients whose sessions live on a shard: the first key's during its linger,
//! and those of rekeys.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

use crate::proto::ClientId;
use crate::proto::session::{EngineId, TlsAnswer, TlsOp, TlsTask};

use super::engines::Engines;

/// Tasks that may wait for one client while other rekeys go first; a client that has sent more
/// before it got an answer has left the protocol.
const MAX_WAITING_TASKS: usize = 64;

/// Where answers go: client, its address (which names the shard), answer.
pub(super) type Deliver<'a> = dyn FnMut(ClientId, Ipv4Addr, TlsAnswer) + 'a;

/// Engines by client, and the queue of rekeys beyond the limit.
pub(super) struct Parked {
    clients: HashMap<ClientId, Client>,
    limit: usize,
    running: usize,
    queue: VecDeque<ClientId>,
}

struct Client {
    engines: Engines,
    address: Ipv4Addr,
    rekey: Rekey,
}

enum Rekey {
    None,
    Running(EngineId),
    Waiting(Vec<TlsTask>),
}

impl Parked {
    /// Nobody yet; at most `limit` rekey handshakes run at a time.
    pub(super) fn new(limit: usize) -> Self {
        Self { clients: HashMap::new(), limit, running: 0, queue: VecDeque::new() }
    }

    /// From now on so many rekey handshakes run at a time; those that run go on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A client has left for its shard.
    pub(super) fn insert(&mut self, client: ClientId, engines: Engines, address: Ipv4Addr) {
        self.clients.insert(client, Client { engines, address, rekey: Rekey::None });
    }

    /// TLS work of a client; answers go to `deliver`.
    pub(super) fn task(&mut self, client: ClientId, task: TlsTask, deliver: &mut Deliver<'_>) {
        let Some(entry) = self.clients.get_mut(&client) else { return };
        // Only the engine that waits does: the first key's may still have something to say.
        if let Rekey::Waiting(tasks) = &mut entry.rekey
            && tasks.first().is_some_and(|first| first.engine == task.engine)
        {
            if matches!(task.op, TlsOp::Close) {
                // Given up before it began; its turn in the queue finds nobody.
                entry.rekey = Rekey::None;
            } else if tasks.len() < MAX_WAITING_TASKS {
                tasks.push(task);
            }
            return;
        }
        if matches!(task.op, TlsOp::Open) && matches!(entry.rekey, Rekey::None) {
            if self.running >= self.limit {
                entry.rekey = Rekey::Waiting(vec![task]);
                self.queue.push_back(client);
                return;
            }
            entry.rekey = Rekey::Running(task.engine);
            self.running += 1;
        }
        if entry.execute(client, task, deliver) {
            self.running -= 1;
            self.start_waiting(deliver);
        }
    }

    /// The tunnel is gone.
    pub(super) fn forget(&mut self, client: ClientId, deliver: &mut Deliver<'_>) {
        let Some(entry) = self.clients.remove(&client) else { return };
        if matches!(entry.rekey, Rekey::Running(_)) {
            self.running -= 1;
            self.start_waiting(deliver);
        }
    }

    fn start_waiting(&mut self, deliver: &mut Deliver<'_>) {
        while self.running < self.limit {
            let Some(client) = self.queue.pop_front() else { return };
            let Some(entry) = self.clients.get_mut(&client) else { continue };
            let Rekey::Waiting(tasks) = std::mem::replace(&mut entry.rekey, Rekey::None) else {
                continue;
            };
            let Some(first) = tasks.first() else { continue };
            entry.rekey = Rekey::Running(first.engine);
            self.running += 1;
            for task in tasks {
                if entry.execute(client, task, deliver) {
                    self.running -= 1;
                }
            }
        }
    }
}

impl Client {
    /// True if the running rekey handshake has ended with this task, well or badly.
    fn execute(&mut self, client: ClientId, task: TlsTask, deliver: &mut Deliver<'_>) -> bool {
        let engine = task.engine;
        let closes = matches!(task.op, TlsOp::Close);
        let answer = self.engines.execute(task);
        let ends =
            closes || answer.as_ref().is_some_and(|a| a.established.is_some() || a.error.is_some());
        if let Some(answer) = answer {
            deliver(client, self.address, answer);
        }
        let ended = ends && matches!(self.rekey, Rekey::Running(running) if running == engine);
        if ended {
            self.rekey = Rekey::None;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tls::null::{NullConfig, NullEngine, NullRole};
    use crate::tls::{TlsContext, TlsEngine, TlsError};

    struct Broken;

    impl TlsContext for Broken {
        fn open(&self) -> Result<Box<dyn TlsEngine>, TlsError> {
            Err(TlsError::NoCertificate)
        }
    }

    const FIRST: EngineId = EngineId(1);
    const SECOND: EngineId = EngineId(2);

    /// Some clients with an address each, and the answers that came back.
    struct Stage {
        parked: Parked,
        answers: Vec<(u64, Ipv4Addr, TlsAnswer)>,
    }

    impl Stage {
        fn new(limit: usize, clients: u64) -> Self {
            Self::with(Arc::new(NullConfig::new(NullRole::Server, 1)), limit, clients)
        }

        fn with(context: Arc<dyn TlsContext>, limit: usize, clients: u64) -> Self {
            let mut parked = Parked::new(limit);
            for client in 1..=clients {
                let engines = Engines::new(Arc::clone(&context));
                parked.insert(ClientId(client), engines, address(client));
            }
            Self { parked, answers: Vec::new() }
        }

        fn task(&mut self, client: u64, engine: EngineId, op: TlsOp) {
            let answers = &mut self.answers;
            self.parked.task(
                ClientId(client),
                TlsTask { engine, op },
                &mut |client, to, answer| {
                    answers.push((client.0, to, answer));
                },
            );
        }

        fn forget(&mut self, client: u64) {
            let answers = &mut self.answers;
            self.parked.forget(ClientId(client), &mut |client, to, answer| {
                answers.push((client.0, to, answer));
            });
        }

        /// Who was answered since the last call.
        fn answered(&mut self) -> Vec<u64> {
            let answers = std::mem::take(&mut self.answers);
            assert!(answers.iter().all(|(client, to, _)| *to == address(*client)));
            answers.into_iter().map(|(client, ..)| client).collect()
        }

        /// Opens an engine and shows it a client hello; a server hello is the answer.
        fn begin(&mut self, client: u64, engine: EngineId) -> NullEngine {
            let mut peer = NullEngine::new(NullConfig::new(NullRole::Client, client));
            let hello = peer.handle(TlsOp::Open).ciphertext;
            self.task(client, engine, TlsOp::Open);
            self.task(client, engine, TlsOp::Input(hello));
            peer
        }

        /// Completes a handshake whose server hello has just come.
        fn finish(&mut self, client: u64, engine: EngineId, peer: &mut NullEngine) {
            let (to, _, hello) = self.answers.pop().expect("no server hello");
            assert_eq!(to, client);
            let finish = peer.handle(TlsOp::Input(hello.ciphertext)).ciphertext;
            let before = self.answers.len();
            self.task(client, engine, TlsOp::Input(finish));
            let (to, _, answer) = self.answers.get(before).expect("no answer to the finish");
            assert!(*to == client && answer.established.is_some());
        }
    }

    fn address(client: u64) -> Ipv4Addr {
        Ipv4Addr::from(0x6440_0000 + u32::try_from(client).unwrap())
    }

    #[test]
    fn a_rekey_beyond_the_limit_waits_until_another_is_complete() {
        let mut stage = Stage::new(1, 2);
        let mut first = stage.begin(1, FIRST);
        let mut second = stage.begin(2, FIRST);
        stage.finish(1, FIRST, &mut first);
        // The end of the first made room: the second has its hello by now, with nothing lost.
        let (client, to, _) = stage.answers.last().unwrap();
        assert_eq!((*client, *to), (2, address(2)));
        stage.finish(2, FIRST, &mut second);
        assert_eq!((stage.parked.running, stage.parked.queue.len()), (0, 0));
    }

    #[test]
    fn those_that_wait_start_in_their_order() {
        let mut stage = Stage::new(1, 4);
        for client in 1..=4 {
            stage.begin(client, FIRST);
        }
        assert_eq!(stage.answered(), [1]);
        for client in 1..=3 {
            stage.task(client, FIRST, TlsOp::Close);
            assert_eq!(stage.answered(), [client + 1]);
        }
        stage.task(4, FIRST, TlsOp::Close);
        assert_eq!(stage.parked.running, 0);
    }

    #[test]
    fn a_tunnel_that_goes_gives_its_place_back_once() {
        let mut stage = Stage::new(1, 3);
        for client in 1..=3 {
            stage.begin(client, FIRST);
        }
        assert_eq!(stage.answered(), [1]);
        // One that waits holds no place.
        stage.forget(2);
        assert_eq!((stage.answered(), stage.parked.running), (vec![], 1));
        stage.forget(1);
        stage.forget(1);
        assert_eq!((stage.answered(), stage.parked.running), (vec![3], 1));
        stage.task(1, FIRST, TlsOp::Open);
        stage.forget(3);
        assert!(stage.parked.clients.is_empty());
        assert_eq!((stage.answered(), stage.parked.running), (vec![], 0));
    }

    #[test]
    fn an_engine_that_fails_or_can_not_be_made_gives_its_place_back() {
        let mut stage = Stage::new(1, 2);
        stage.begin(1, FIRST);
        stage.begin(2, FIRST);
        stage.task(1, FIRST, TlsOp::Input(vec![0xff; 200]));
        assert_eq!(stage.answered(), [1, 1, 2]);
        stage.task(1, FIRST, TlsOp::Close);
        assert_eq!(stage.parked.running, 1);

        let mut stage = Stage::with(Arc::new(Broken), 1, 1);
        stage.task(1, FIRST, TlsOp::Open);
        assert!(stage.answers[0].2.error.is_some());
        assert_eq!(stage.parked.running, 0);
    }

    #[test]
    fn the_first_keys_linger_and_a_rekey_are_told_apart() {
        let mut stage = Stage::new(1, 2);
        // The login's engine moved in open; only what is opened here is a rekey.
        let lingering = || {
            let mut engines = Engines::new(Arc::new(NullConfig::new(NullRole::Server, 9)));
            let _ = engines.execute(TlsTask { engine: FIRST, op: TlsOp::Open });
            engines
        };
        stage.parked.insert(ClientId(1), lingering(), address(1));
        stage.begin(1, SECOND);
        assert_eq!((stage.answered(), stage.parked.running), (vec![1], 1));
        stage.task(1, FIRST, TlsOp::Close);
        assert_eq!(stage.parked.running, 1, "the end of the linger is not the end of the rekey");
        // Nor has a rekey that waits anything to do with it.
        stage.parked.insert(ClientId(3), lingering(), address(3));
        stage.begin(3, SECOND);
        assert_eq!(stage.answered(), [0; 0]);
        let hello = NullEngine::new(NullConfig::new(NullRole::Client, 3)).handle(TlsOp::Open);
        stage.task(3, FIRST, TlsOp::Input(hello.ciphertext));
        assert_eq!(stage.answered(), [3]);
        stage.forget(3);
        stage.task(1, SECOND, TlsOp::Close);
        assert_eq!(stage.parked.running, 0);
    }

    #[test]
    fn a_client_that_waits_holds_bounded_memory_and_a_given_up_rekey_no_place() {
        let mut stage = Stage::new(1, 2);
        stage.begin(1, FIRST);
        stage.begin(2, FIRST);
        for _ in 0..1000 {
            stage.task(2, FIRST, TlsOp::Input(vec![0; 1000]));
        }
        let Rekey::Waiting(tasks) = &stage.parked.clients[&ClientId(2)].rekey else { panic!() };
        assert!(tasks.len() <= MAX_WAITING_TASKS);
        // Its rekey is given up while it waits; the close is not lost with what was too much.
        stage.task(2, FIRST, TlsOp::Close);
        stage.forget(1);
        assert_eq!((stage.answered(), stage.parked.running), (vec![1], 0));
    }
}
