//! What each side of a shape does, step by step.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Send(u32),
    /// So many bytes, all right.
    Receive(u32),
    /// Sends and receives so many at once.
    Both(u32),
    /// No more bytes from here: FIN.
    End,
    /// No more bytes from there, told by a clean end.
    ExpectEnd,
    /// RST; the last step.
    Reset,
    /// An error, after any number of further right bytes. A clean end is a lie.
    ExpectReset,
    /// Sends until the other side's reset shows.
    SendUntilReset,
}

#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub client: &'static [Step],
    pub server: &'static [Step],
    /// Largest write.
    pub write_max: usize,
    /// Largest read, and the pause after each.
    pub read_max: usize,
    pub pause: Duration,
    /// The smallest socket buffers that the kernel gives.
    pub small_buffers: bool,
}

use Step::{Both, End, ExpectEnd, ExpectReset, Receive, Reset, Send, SendUntilReset};

const PLAIN: Shape = Shape {
    name: "",
    client: &[],
    server: &[],
    write_max: 64 * 1024,
    read_max: 64 * 1024,
    pause: Duration::ZERO,
    small_buffers: false,
};

const MIB: u32 = 1 << 20;

pub const SHAPES: [Shape; 14] = [
    Shape {
        name: "client-first",
        client: &[Send(5_000), Receive(70_000), End, ExpectEnd],
        server: &[Receive(5_000), Send(70_000), ExpectEnd, End],
        ..PLAIN
    },
    Shape {
        name: "server-first",
        client: &[Receive(3_000), Send(4_000), Receive(500), ExpectEnd, End],
        server: &[Send(3_000), Receive(4_000), Send(500), End, ExpectEnd],
        ..PLAIN
    },
    Shape {
        name: "client-half-closes",
        client: &[Send(100_000), End, Receive(50_000), ExpectEnd],
        server: &[Receive(100_000), ExpectEnd, Send(50_000), End],
        ..PLAIN
    },
    Shape {
        name: "server-half-closes",
        client: &[Send(16), Receive(100_000), ExpectEnd, Send(50_000), End],
        server: &[Receive(16), Send(100_000), End, Receive(50_000), ExpectEnd],
        ..PLAIN
    },
    Shape {
        name: "no-answer",
        client: &[Send(16), End, ExpectEnd],
        server: &[Receive(16), ExpectEnd, End],
        ..PLAIN
    },
    Shape {
        name: "client-resets",
        client: &[Send(2_000), Receive(1_000), Reset],
        server: &[Receive(2_000), Send(1_000), ExpectReset],
        ..PLAIN
    },
    Shape {
        name: "server-resets",
        client: &[Send(2_000), Receive(1_000), Send(1), ExpectReset],
        server: &[Receive(2_000), Send(1_000), Receive(1), Reset],
        ..PLAIN
    },
    Shape {
        name: "reset-under-way",
        client: &[Send(16), SendUntilReset],
        server: &[Receive(100_000), Reset],
        ..PLAIN
    },
    Shape {
        name: "one-byte-writes",
        client: &[Send(500), Receive(500), End, ExpectEnd],
        server: &[Receive(500), Send(500), ExpectEnd, End],
        write_max: 1,
        ..PLAIN
    },
    Shape {
        name: "small-buffers",
        client: &[Send(16), Both(8_000), End, ExpectEnd],
        server: &[Receive(16), Both(8_000), ExpectEnd, End],
        small_buffers: true,
        ..PLAIN
    },
    Shape {
        name: "slow-reader",
        client: &[Send(300_000), Receive(300_000), End, ExpectEnd],
        server: &[Receive(300_000), Send(300_000), ExpectEnd, End],
        read_max: 16 * 1024,
        pause: Duration::from_millis(2),
        ..PLAIN
    },
    Shape {
        name: "both-at-once",
        client: &[Send(16), Both(MIB), End, ExpectEnd],
        server: &[Receive(16), Both(MIB), End, ExpectEnd],
        ..PLAIN
    },
    Shape {
        name: "64-mib-both-at-once",
        client: &[Send(16), Both(64 * MIB), End, ExpectEnd],
        server: &[Receive(16), Both(64 * MIB), End, ExpectEnd],
        ..PLAIN
    },
    // A client that has seen its end knows that the server has seen the client's.
    Shape {
        name: "both-and-agreed",
        client: &[Send(16), Both(MIB), End, ExpectEnd],
        server: &[Receive(16), Both(MIB), ExpectEnd, End],
        ..PLAIN
    },
];

impl Shape {
    pub fn named(name: &str) -> Option<(u16, &'static Self)> {
        static TABLE: [Shape; 14] = SHAPES;
        (0..).zip(&TABLE).find(|(_, shape)| shape.name == name)
    }

    pub fn all() -> impl Iterator<Item = (u16, &'static Self)> {
        SHAPES.iter().filter_map(|shape| Self::named(shape.name))
    }

    /// Whether a side never has to send and receive at the same time.
    pub fn is_sequential(&self) -> bool {
        !self.client.iter().any(|step| matches!(step, Both(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that a side sends and awaits, and whether either end is a reset.
    fn sum(steps: &[Step]) -> (u32, u32) {
        steps.iter().fold((0, 0), |(out, back), step| match step {
            Send(bytes) => (out + bytes, back),
            Receive(bytes) => (out, back + bytes),
            Both(bytes) => (out + bytes, back + bytes),
            _ => (out, back),
        })
    }

    #[test]
    fn what_one_side_sends_the_other_awaits() {
        for shape in &SHAPES {
            if shape.client.contains(&SendUntilReset) {
                continue;
            }
            let (up, down) = sum(shape.client);
            assert_eq!(sum(shape.server), (down, up), "{}", shape.name);
        }
    }

    #[test]
    fn names_are_unique_and_each_is_found_at_its_place() {
        for (index, shape) in Shape::all() {
            assert_eq!(SHAPES[usize::from(index)].name, shape.name);
        }
        assert_eq!(Shape::all().count(), SHAPES.len());
    }
}
