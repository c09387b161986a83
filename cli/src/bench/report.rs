//! The benchmark report, as JSON and as a table.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::options::LoadOptions;
use super::tally::{Count, Tally};
use crate::output::write_columns;
use crate::serve::Runtime;

/// The result of one benchmark. Its members are the documented ones, in the documented order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// `null` for a running server, which does not report its runtime.
    pub(super) runtime: Option<&'static str>,
    pub(super) nodes: usize,
    pub(super) clients: usize,
    pub(super) pipeline: usize,
    /// The length of the measurement, in seconds.
    pub(super) seconds: f64,
    pub(super) put: Figures,
    pub(super) get: Figures,
}

/// The figures of one kind of request; all are 0 when there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Successful requests.
    pub(super) ops: u64,
    pub(super) per_second: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
    pub(super) max_us: u64,
    /// Requests that were rejected or never answered.
    pub(super) errors: u64,
}

impl Report {
    pub(super) fn new(runtime: Option<Runtime>, nodes: usize, load: &LoadOptions, tally: &Tally) -> Self {
        let elapsed = tally.elapsed();
        Self {
            runtime: runtime.map(Runtime::name),
            nodes,
            clients: load.clients,
            pipeline: load.pipeline,
            seconds: rounded(elapsed.as_secs_f64(), 1_000.0),
            put: Figures::new(tally.puts(), elapsed),
            get: Figures::new(tally.gets(), elapsed),
        }
    }

    /// Writes the report as text for people.
    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { nodes, clients, pipeline, seconds, .. } = self;
        let runtime = self.runtime.map_or_else(String::new, |runtime| format!(" on {runtime}"));
        writeln!(out, "{nodes} nodes{runtime}, {clients} clients, pipeline {pipeline}, {seconds:.1} s")?;
        write_columns(out, &[head(""), self.put.row("put"), self.get.row("get")])
    }
}

impl Figures {
    fn new(count: &Count, elapsed: Duration) -> Self {
        let micros = &count.micros;
        let ops = micros.len();
        if ops == 0 {
            return Self { errors: count.errors, ..Self::default() };
        }
        // The histogram rounds up, so a quantile is limited to the longest measured time.
        let quantile = |quantile| micros.value_at_quantile(quantile).min(micros.max());
        Self {
            ops,
            per_second: rounded(ops as f64 / elapsed.as_secs_f64(), 10.0),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: micros.max(),
            errors: count.errors,
        }
    }

    /// Returns a row of the table under [`head`].
    pub(super) fn row(&self, name: &str) -> [String; 8] {
        [
            name.to_owned(),
            self.ops.to_string(),
            format!("{:.0}", self.per_second),
            millis(self.p50_us),
            millis(self.p99_us),
            millis(self.p999_us),
            millis(self.max_us),
            self.errors.to_string(),
        ]
    }
}

/// Returns the head of the table.
pub(super) fn head(first: &str) -> [String; 8] {
    [first, "OPS", "PER SECOND", "P50 ms", "P99 ms", "P99.9 ms", "MAX ms", "ERRORS"].map(str::to_owned)
}

/// Formats microseconds as milliseconds with three decimals, the precision of the measurement.
fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::options::LoadOptions;
    use crate::bench::requests::Kind;
    use crate::bench::tally::Window;

    fn report() -> Report {
        let second = Duration::from_secs(1);
        let window = Window { from: second, until: 2 * second, is_open_loop: false };
        let mut tally = Tally::new(window);
        for micros in 1..=1_000 {
            let took = Duration::from_micros(micros);
            tally.answered(Kind::Put, second, second + took, b"{\"status\":\"ok\"}");
        }
        tally.answered(Kind::Put, second, second, b"{\"status\":\"error\"}");
        let load = LoadOptions {
            clients: 4,
            pipeline: 2,
            value_bytes: 1,
            puts_percent: 100,
            linearizable: false,
            rate_per_second: None,
            warmup: second,
            duration: second,
        };
        Report::new(Some(Runtime::Threads), 3, &load, &tally)
    }

    #[test]
    fn json_has_exactly_the_documented_members() {
        let expected = concat!(
            r#"{"runtime":"threads","nodes":3,"clients":4,"pipeline":2,"seconds":1.0,"#,
            r#""put":{"ops":1000,"per_second":1000.0,"p50_us":500,"p99_us":990,"p999_us":999,"max_us":1000,"errors":1},"#,
            r#""get":{"ops":0,"per_second":0.0,"p50_us":0,"p99_us":0,"p999_us":0,"max_us":0,"errors":0}}"#
        );
        assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
    }

    #[test]
    fn text_is_a_table() {
        let mut out = Vec::new();
        report().write_text(&mut out).unwrap();
        let expected = "\
3 nodes on threads, 4 clients, pipeline 2, 1.0 s
     OPS   PER SECOND  P50 ms  P99 ms  P99.9 ms  MAX ms  ERRORS
put  1000  1000        0.500   0.990   0.999     1.000   1
get  0     0           0.000   0.000   0.000     0.000   0
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
