//! The flags that all client commands share: the servers, the timeout, and the output format.

use std::time::Duration;

use clap::Args;

use crate::address::Address;
use crate::caller::Caller;
use crate::durations;
use crate::list::{List, all_of};
use crate::output::Format;
use crate::tls::{Trust, TrustFlags};

/// The default address of the server.
const ADDRESS_DEFAULT: &str = "127.0.0.1:3001";

// The servers that receive the requests. No doc comment: clap would use it as the help of the
// command that this struct is part of.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Servers to ask: the next one is tried when one fails
    #[arg(
        long,
        value_name = "ADDR[,ADDR...]",
        env = "CORACLE_CONNECT",
        default_value = ADDRESS_DEFAULT,
        help_heading = "Connection"
    )]
    connect: Vec<List<Address>>,

    /// How long to wait for a server's reply; 0 waits forever
    ///
    /// The default is longer than the server's --request-timeout (5s), because the server's error
    /// says more about the outcome than a client-side timeout.
    #[arg(
        long,
        value_name = "DUR",
        default_value = "10s",
        value_parser = durations::zero_for_off,
        help_heading = "Connection"
    )]
    timeout: Duration,

    /// Text for people and line-wise tools, or the server's JSON
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Connection")]
    pub(crate) output: Format,

    #[command(flatten)]
    trust: TrustFlags,
}

impl Target {
    /// Returns the servers. An empty list, as from an environment variable with an empty value,
    /// means the default.
    fn addresses(&self) -> Vec<Address> {
        let given = all_of(&self.connect);
        if given.is_empty() { vec![ADDRESS_DEFAULT.parse().expect("an address")] } else { given }
    }

    /// How long to wait for a server's reply; zero: forever.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Creates a caller for these servers.
    pub(crate) fn caller(&self) -> Caller {
        self.impatient_caller(self.timeout)
    }

    /// Creates a caller with a different timeout.
    pub(crate) fn impatient_caller(&self, timeout: Duration) -> Caller {
        Caller::new(self.addresses(), timeout, Trust::load(&self.trust))
    }
}
