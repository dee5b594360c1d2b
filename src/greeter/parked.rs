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

    /// A client has left for its shard.
    pub(super) fn insert(&mut self, client: ClientId, engines: Engines, address: Ipv4Addr) {
        self.clients.insert(client, Client { engines, address, rekey: Rekey::None });
    }

    /// TLS work of a client; answers go to `deliver`.
    pub(super) fn task(&mut self, client: ClientId, task: TlsTask, deliver: &mut Deliver<'_>) {
        let Some(entry) = self.clients.get_mut(&client) else { return };
        if let Rekey::Waiting(tasks) = &mut entry.rekey {
            if tasks.len() < MAX_WAITING_TASKS {
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
