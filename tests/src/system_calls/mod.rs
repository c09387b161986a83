//! Fault injection into system calls: every call that the program makes fails in every way that it
//! may.
//!
//! A test of one failing disk shows that a failing write is noticed. It says nothing about a socket
//! that cannot be created, a thread that does not start, or a call that a signal interrupts, and a
//! program makes some sixty kinds of calls. Therefore a table lists the calls, the errors in their
//! manual pages, and the allowed outcomes for a server. A traced run without faults shows which
//! calls there are. Each of them then fails in each way, at the first call, later, and permanently
//! from some call on, each in a separate run. A call that is not in the table is an open row, and
//! fails the whole test.
//!
//! Whatever fails, a server may continue, refuse to start, or stop a node or itself, as the table
//! says. It must not hang, spin, panic, end without an error message, give a wrong answer, or lose
//! what it acknowledged. After each run it starts again on the same files without faults, and all
//! acknowledged data must be there.

mod calls;
mod client;
mod run;
mod tracer;

pub use calls::{Must, Row, TABLE, row_of};
pub use run::{Case, Moment, Outcome, Subject, Violation, calls_of, prepare};
