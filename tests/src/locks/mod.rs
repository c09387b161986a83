//! Contention for a lock: two contenders run `coracle lock` again and again, and the holder is
//! killed or paused. Each holder writes its fencing token to a store, a file, again and again.
//!
//! A paused holder is not aware of the time, so its command may write after another one has the
//! lock. Therefore the store rejects a token below the highest one that it has seen. The tokens
//! themselves must rise with each holder: otherwise the store could not tell them apart.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::live::{program, signal};

/// The time to live of the lock.
const TTL: Duration = Duration::from_millis(500);
/// How long the next holder may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The command of a holder: it writes its token, and the process id of `coracle lock`, until that
/// process has ended.
const SCRIPT: &str =
    "while kill -0 $PPID 2>/dev/null; do echo $CORACLE_FENCE $PPID >> \"$STORE\"; sleep 0.01; done";

/// The result of a campaign.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contention {
    /// The number of holders.
    pub holders: u64,
    /// The number of holders that were killed, and below it that of those that were paused.
    pub killed: u64,
    /// See above.
    pub paused: u64,
    /// Writes that the store has accepted.
    pub accepted: u64,
    /// Writes with a token below the highest one that the store had seen.
    pub rejected: u64,
}

/// A write to the store.
#[derive(Clone, Copy, Debug)]
struct Stored {
    token: u64,
    holder: u32,
}

/// Lets two contenders compete for the lock of the servers at `connect`, and disturbs the holder
/// `disturbances` times. `folder` is for the store.
///
/// # Errors
///
/// A description, if a token is not higher than all earlier ones, or no contender gets the lock.
pub fn contend(connect: &str, folder: &Path, disturbances: u64, seed: u64) -> Result<Contention, String> {
    let store = folder.join("store.txt");
    fs::write(&store, "").map_err(|error| error.to_string())?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut contenders = [contender(connect, &store), contender(connect, &store)];
    let (mut result, mut last) = (Contention::default(), 0);
    let outcome = (0..disturbances).try_for_each(|_| {
        let holder = next_holder(&store, last, &mut contenders, || contender(connect, &store))?;
        last = holder.token;
        thread::sleep(Duration::from_millis(rng.u64(0..200)));
        if rng.bool() {
            result.killed += 1;
            signal(holder.holder, "KILL");
        } else {
            result.paused += 1;
            signal(holder.holder, "STOP");
            let until = Instant::now() + TTL * 2 + Duration::from_millis(rng.u64(0..500));
            // Another contender becomes the holder meanwhile, and both write.
            thread::sleep(until.saturating_duration_since(Instant::now()));
            signal(holder.holder, "CONT");
        }
        Ok(())
    });
    for contender in &mut contenders {
        _ = contender.kill();
        _ = contender.wait();
    }
    outcome.and_then(|()| judge(&stored(&store), result))
}

fn contender(connect: &str, store: &Path) -> Child {
    Command::new(program())
        .args(["lock", "contended", "--ttl", "500ms", "--", "sh", "-c", SCRIPT])
        .env("CORACLE_CONNECT", connect)
        .env("STORE", store)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Waits for a holder with a token above `last`, and starts contenders in place of those that have
/// ended.
fn next_holder(
    store: &Path,
    last: u64,
    contenders: &mut [Child],
    start: impl Fn() -> Child,
) -> Result<Stored, String> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for contender in contenders.iter_mut() {
            if contender.try_wait().map_err(|error| error.to_string())?.is_some() {
                *contender = start();
            }
        }
        let running: Vec<u32> = contenders.iter().map(Child::id).collect();
        let newest = stored(store).into_iter().filter(|stored| running.contains(&stored.holder));
        if let Some(newest) = newest.max_by_key(|stored| stored.token).filter(|stored| stored.token > last) {
            return Ok(newest);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(format!("nobody got the lock after token {last}"))
}

/// The complete lines of the store.
fn stored(store: &Path) -> Vec<Stored> {
    let text = fs::read_to_string(store).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let write = |line: &str| {
        let (token, holder) = line.split_once(' ')?;
        Some(Stored { token: token.parse().ok()?, holder: holder.parse().ok()? })
    };
    complete.lines().filter_map(write).collect()
}

/// Checks that the tokens rise from holder to holder, and counts what the store accepts.
fn judge(writes: &[Stored], mut result: Contention) -> Result<Contention, String> {
    let mut seen: Vec<Stored> = Vec::new();
    for write in writes {
        let highest = seen.last().map_or(0, |holder| holder.token);
        if seen.iter().any(|holder| (holder.token, holder.holder) == (write.token, write.holder)) {
            let is_old = write.token < highest;
            *(if is_old { &mut result.rejected } else { &mut result.accepted }) += 1;
            continue;
        }
        if write.token <= highest {
            return Err(format!("{write:?} is a new holder after token {highest}"));
        }
        seen.push(*write);
        result.accepted += 1;
    }
    result.holders = seen.len() as u64;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_does_not_rise_is_found() {
        let write = |token, holder| Stored { token, holder };
        let good = [write(5, 1), write(5, 1), write(9, 2), write(5, 1), write(9, 2), write(12, 1)];
        let result = judge(&good, Contention::default()).unwrap();
        assert_eq!((result.holders, result.accepted, result.rejected), (3, 5, 1));
        for bad in [[write(5, 1), write(5, 2)], [write(5, 1), write(4, 2)]] {
            assert!(judge(&bad, Contention::default()).is_err());
        }
    }
}
