//! Random source of a run: every random choice, drawn from one seed.
//!
//! The choices are recorded on a tape. A tape can be played back, whole or with parts left out or
//! set to zero; shrinking a failing run works that way. A tape that has ended gives zeros, and zero
//! is the quietest choice everywhere.

/// The source of all choices of a run.
#[derive(Debug)]
pub struct Dice {
    rng: fastrand::Rng,
    played: Option<Vec<u32>>,
    tape: Vec<u32>,
}

impl Dice {
    /// Draws the choices from a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), played: None, tape: Vec::new() }
    }

    /// Plays back the choices of a tape.
    #[must_use]
    pub fn from_tape(tape: Vec<u32>) -> Self {
        Self { rng: fastrand::Rng::with_seed(0), played: Some(tape), tape: Vec::new() }
    }

    /// The choices that were made so far.
    #[must_use]
    pub fn tape(&self) -> &[u32] {
        &self.tape
    }

    /// Draws a number below `limit`, which must be above zero. Zero is the quiet choice.
    pub fn below(&mut self, limit: u32) -> u32 {
        let drawn = match &self.played {
            Some(played) => played.get(self.tape.len()).copied().unwrap_or(0),
            None => self.rng.u32(..),
        };
        self.tape.push(drawn);
        // The bias of the remainder is far below anything a run could notice.
        drawn % limit
    }

    /// Draws a number of the range, both ends included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let width = u32::try_from(high - low + 1).expect("ranges of choices are small");
        low + u64::from(self.below(width))
    }

    /// Draws a position in a collection of `len` elements, which must be above zero.
    pub fn position(&mut self, len: usize) -> usize {
        self.below(u32::try_from(len).expect("collections of choices are small")) as usize
    }

    /// Returns true in about `per_mille` of a thousand cases. A tape of zeros always gives false.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) >= 1000 - per_mille.min(999)
    }

    /// Draws one of these values.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.position(choices.len())]
    }

    /// Draws a duration from an exponential distribution with the mean `typical`: mostly smaller
    /// values, sometimes a multiple of it.
    pub fn exponential(&mut self, typical: u64) -> u64 {
        let uniform = f64::from(self.below(1 << 20)) / f64::from(1 << 20);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let drawn = (-(1.0 - uniform).ln() * typical as f64) as u64;
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_choices(dice: &mut Dice) -> Vec<u64> {
        (0..100).map(|limit| dice.between(3, 3 + limit)).collect()
    }

    #[test]
    fn a_tape_plays_back_what_a_seed_drew() {
        let mut drawn = Dice::from_seed(9);
        let choices = some_choices(&mut drawn);
        let mut played = Dice::from_tape(drawn.tape().to_vec());
        assert_eq!(some_choices(&mut played), choices);
        assert_ne!(some_choices(&mut Dice::from_seed(10)), choices);
    }

    #[test]
    fn an_ended_tape_makes_the_quiet_choice() {
        let mut dice = Dice::from_tape(Vec::new());
        assert_eq!((dice.below(7), dice.happens(999), dice.exponential(50)), (0, false, 0));
    }

    #[test]
    fn happens_matches_its_probability() {
        let mut dice = Dice::from_seed(1);
        let count = (0..10_000).filter(|_| dice.happens(100)).count();
        assert!((800..1200).contains(&count), "{count}");
    }
}
