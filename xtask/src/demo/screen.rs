//! What the demo prints: numbered steps with their times, what was seen, and what it proves.

use std::cell::Cell;
use std::io::Write as _;
use std::time::Instant;

pub struct Screen {
    steps: usize,
    begun: Cell<usize>,
}

/// A step that is being done; its time is printed when it is.
#[must_use]
pub struct Step(Instant);

const WIDTH: usize = 72;

impl Screen {
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            begun: Cell::new(0),
        }
    }

    pub fn step(&self, what: &str) -> Step {
        self.begun.set(self.begun.get() + 1);
        print!("[{}/{}] {what:WIDTH$}", self.begun.get(), self.steps);
        // A screen that cannot be written to is no reason to stop.
        let _ = std::io::stdout().flush();
        Step(Instant::now())
    }

    pub fn say(&self, what: &str) {
        println!("      {what}");
    }

    pub fn title(&self, what: &str) {
        println!("\n{what}:");
    }

    pub fn point(&self, what: &str) {
        println!("  ✓ {what}");
    }
}

impl Step {
    pub fn done(self) {
        println!("{:5.1} s", self.0.elapsed().as_secs_f64());
    }

    /// For a step that tells what it does line by line.
    pub fn newline(self) {
        println!();
    }
}
