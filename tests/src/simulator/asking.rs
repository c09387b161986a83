//! Client retries: a write of a session whose outcome is unknown is sent again until it is
//! answered.

use coracle_core::Request;
use coracle_core::kv::Outcome;
use coracle_core::proxy::{RequestError, Ticket};

use super::clients::{Operation, Returned};
use super::invariants::{Verdict, Violation};
use super::world::World;

impl World {
    /// Sends a request to the proxy, as soon as its connection allows it.
    pub(super) fn ask(&mut self, ticket: Ticket, request: Request) -> Verdict {
        self.trace.note(self.now, [4, ticket.connection, ticket.slot], || {
            format!("client {} asks {request:?}", ticket.connection - 1)
        });
        self.invariants.before_ask(&request);
        match self.connections.send(ticket, &request) {
            Some(asked) => self.step_router(vec![asked]),
            None => {
                self.trace.sight("a request waited for others of its connection");
                Ok(())
            }
        }
    }

    /// Processes the reply that a client receives.
    pub(super) fn hear(&mut self, operation: Operation, returned: &Returned) -> Verdict {
        self.invariants.after_return(&operation, returned)?;
        if let Returned::Applied { index, outcome, .. } = returned {
            if *outcome == Outcome::SessionExpired {
                self.trace.sight("a session expired");
            } else if *outcome == Outcome::TooManySessions {
                self.trace.sight("a new session was rejected");
            } else if self.invariants.model.is_retry(*index) {
                self.trace.sight("a retry was answered from the session table");
            }
        }
        if self.clients.may_ask_again(&operation, returned) {
            self.clients.keep(operation, returned);
        } else {
            self.samples.record(&operation, returned, self.now);
        }
        Ok(())
    }

    /// Returns whether a client that is about to send a request retries an earlier write in place
    /// of a new one. So clients do not send more requests when they get no answers.
    pub(super) fn asks_again(&mut self, client: usize) -> Result<bool, Violation> {
        if self.clients.only_read {
            for operation in self.clients.give_up(client) {
                self.samples.record(&operation, &Returned::Failed(RequestError::NoLeader), self.now);
            }
        }
        let Some((ticket, request)) = self.clients.ask_again(client) else { return Ok(false) };
        self.ask(ticket, request)?;
        Ok(true)
    }
}
