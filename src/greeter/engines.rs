//! The TLS engines of one client, by key.

use std::sync::Arc;

use crate::proto::session::{EngineId, TlsAnswer, TlsOp, TlsTask};
use crate::tls::{EngineAnswer, TlsContext, TlsEngine};

/// Engines that one client can have at a time: the first key's during its linger, and a rekey's.
const MAX_ENGINES: usize = 3;

/// The engines of one client.
pub(super) struct Engines {
    context: Arc<dyn TlsContext>,
    open: Vec<(EngineId, Box<dyn TlsEngine>)>,
}

impl Engines {
    /// No engine yet; new ones come from `context`.
    pub(super) fn new(context: Arc<dyn TlsContext>) -> Self {
        Self { context, open: Vec::new() }
    }

    /// Executes one operation. Tasks for an engine that is gone are ignored.
    pub(super) fn execute(&mut self, task: TlsTask) -> Option<TlsAnswer> {
        match task.op {
            TlsOp::Open => self.open_engine(task.engine),
            TlsOp::Close => {
                self.open.retain(|(id, _)| *id != task.engine);
                None
            }
            op @ (TlsOp::Input(_) | TlsOp::Write(_)) => {
                let (_, engine) = self.open.iter_mut().find(|(id, _)| *id == task.engine)?;
                let answer = engine.handle(op).for_engine(task.engine);
                if answer.error.is_some() {
                    self.open.retain(|(id, _)| *id != task.engine);
                }
                Some(answer)
            }
        }
    }

    fn open_engine(&mut self, id: EngineId) -> Option<TlsAnswer> {
        if self.open.len() >= MAX_ENGINES {
            let error = "too many keys of one session at once";
            return Some(EngineAnswer::failed(error).for_engine(id));
        }
        match self.context.open() {
            Ok(mut engine) => {
                let answer = engine.handle(TlsOp::Open);
                self.open.push((id, engine));
                // A server waits for the client's first flight.
                (!answer.is_nothing()).then(|| answer.for_engine(id))
            }
            Err(error) => Some(EngineAnswer::failed(error.to_string()).for_engine(id)),
        }
    }
}
