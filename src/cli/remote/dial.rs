//! `dial`: standard input and output become a connection to a router.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;

use super::Remote;
use crate::cli::{Failure, Outcome};
use crate::control_api::client::Dialled;
use crate::control_api::types::DialQuery;

/// Bytes on their way in each direction.
const BUFFER_BYTES: usize = 64 * 1024;

impl Remote {
    /// Runs until the router has closed its half. The end of standard input closes only ours.
    pub(in crate::cli) async fn dial(
        &self,
        name: &str,
        port: u16,
        generation: Option<u64>,
    ) -> Outcome {
        let query = DialQuery { port: u32::from(port), generation };
        let Dialled { stream, early } = self.client.dial(name, query).await?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let to_router = stream.try_clone()?;
        // Nobody waits for it: a read of a terminal can't be ended from outside.
        std::thread::Builder::new().name("input".to_owned()).spawn(move || {
            // Who has closed is told by the other direction.
            let _ = carry(&mut io::stdin().lock(), &to_router);
            let _ = to_router.shutdown(Shutdown::Write);
        })?;
        let received = tokio::task::block_in_place(|| {
            let mut output = io::stdout().lock();
            output.write_all(&early)?;
            output.flush()?;
            carry(&mut &stream, &mut output)
        });
        match received {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure(format!("the connection to {name} broke: {error}"))),
        }
    }
}

fn carry(from: &mut impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all(buffer.get(..n).unwrap_or_default())?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
