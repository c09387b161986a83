//! Parser of the three-machine guide: reads the steps of each `console` block and the command of
//! the unit file from its text, so that tests can execute them.
//!
//! A line with a prompt is a step: `$ …` on the operator's machine, `10.0.0.4$ …` on that machine;
//! `> …` continues it. Any other line is the output of the step. A [`Site`](super::Site) maps a
//! step to this machine.

/// The text of a guide.
#[derive(Debug)]
pub struct Guide {
    text: String,
}

/// A command of the guide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The last number of the machine's address; `None` for the operator's machine.
    pub machine: Option<u64>,
    /// The command, in as many lines as in the guide.
    pub command: String,
    /// The output that the guide shows below it.
    pub output: String,
}

impl Guide {
    /// Reads the guide from the repository.
    ///
    /// # Panics
    ///
    /// When the file does not exist.
    #[must_use]
    pub fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/three-machines.md");
        Self { text: std::fs::read_to_string(path).expect("the guide is there") }
    }

    /// Reads another document of the repository.
    ///
    /// # Panics
    ///
    /// When the file does not exist.
    #[must_use]
    pub fn document(path: &str) -> Self {
        let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
        Self { text: std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")) }
    }

    /// The steps of each `console` block of the whole document. Blocks of root's commands, whose
    /// prompt is `#`, are left out.
    #[must_use]
    pub fn all_procedures(&self) -> Vec<Vec<Step>> {
        let blocks = Self::fenced(&self.text, "console");
        blocks.iter().filter(|block| !block.starts_with("# ")).map(|block| steps(block)).collect()
    }

    /// The commands in the first column of the document's tables.
    #[must_use]
    pub fn commands_in_tables(&self) -> Vec<String> {
        let rows = self.text.lines().filter_map(|line| line.strip_prefix("| `coracle "));
        let commands = rows.filter_map(|row| row.split_once("` |"));
        commands.map(|(command, _)| format!("coracle {}", command.replace("\\|", "|"))).collect()
    }

    /// The text below this heading, up to the next one.
    fn section(&self, heading: &str) -> &str {
        let marked = format!("\n## {heading}\n");
        let (_, rest) = self.text.split_once(&marked).unwrap_or_else(|| panic!("no section {heading}"));
        rest.split_once("\n## ").map_or(rest, |(section, _)| section)
    }

    fn fenced(section: &str, language: &str) -> Vec<String> {
        let opening = format!("```{language}\n");
        let blocks = section.split(opening.as_str()).skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
    }

    /// The steps of each `console` block below this heading.
    ///
    /// # Panics
    ///
    /// When there is no such heading, or no block below it.
    #[must_use]
    pub fn procedures(&self, heading: &str) -> Vec<Vec<Step>> {
        let blocks = Self::fenced(self.section(heading), "console");
        assert!(!blocks.is_empty(), "no procedure in {heading}");
        blocks.iter().map(|block| steps(block)).collect()
    }

    /// The only procedure below this heading.
    ///
    /// # Panics
    ///
    /// When there are several or none.
    #[must_use]
    pub fn procedure(&self, heading: &str) -> Vec<Step> {
        let mut procedures = self.procedures(heading);
        assert_eq!(procedures.len(), 1, "{heading}");
        procedures.remove(0)
    }

    /// The flags that the guide's `$SECURED` stands for, with `nodeN` in the names of files.
    ///
    /// # Panics
    ///
    /// When the guide does not say them.
    #[must_use]
    pub fn security_flags(&self) -> String {
        let flags = Self::fenced(self.section("Certificates"), "text").concat().replace('\n', " ");
        assert!(flags.contains("--peer-cert"), "{flags}");
        flags
    }

    /// The command in the unit file of machine 1, in one line.
    ///
    /// # Panics
    ///
    /// When there is no unit file.
    #[must_use]
    pub fn unit_command(&self) -> String {
        let unit = Self::fenced(self.section("A unit for systemd"), "ini").concat().replace("\\\n", " ");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/"));
        line.expect("the unit starts the program").to_owned()
    }
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        let prompted = line.split_once("$ ").and_then(|(prompt, command)| {
            let machine = match prompt.strip_prefix("10.0.0.") {
                Some(number) => Some(number.parse().ok()?),
                None if prompt.is_empty() => None,
                None => return None,
            };
            Some(Step { machine, command: command.to_owned(), output: String::new() })
        });
        match (prompted, line.strip_prefix("> "), steps.last_mut()) {
            (Some(step), _, _) => steps.push(step),
            (None, Some(more), Some(step)) => step.command += &format!("\n{more}"),
            (None, None, Some(step)) => step.output += &format!("{line}\n"),
            (None, _, None) => panic!("no prompt before {line}"),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_as_steps() {
        let block = "$ for a in 1; do\n>   b\n> done\nok\n10.0.0.12$ c --d 10.0.0.1:4001\n";
        let step = |machine, command: &str, output: &str| Step {
            machine,
            command: command.to_owned(),
            output: output.to_owned(),
        };
        assert_eq!(
            steps(block),
            [step(None, "for a in 1; do\n  b\ndone", "ok\n"), step(Some(12), "c --d 10.0.0.1:4001", "")]
        );
    }
}
