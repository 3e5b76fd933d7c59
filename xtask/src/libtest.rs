//! What libtest's programs print.

/// The lines about what failed: the second half of what a program with `--show-output` says, where
/// what passed comes first. Several programs' output may follow one another.
pub fn failures<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut inside = false;
    lines.filter(move |line| {
        inside = match *line {
            "failures:" => true,
            line if line.starts_with("test result: ") => false,
            _ => inside,
        };
        inside
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_is_shown() {
        let text = "test a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nfine\n\n\
                    failures:\n\n---- b stdout ----\nleft: 1\n\ntest result: FAILED. 1 passed\n\
                    running 1 test\ntest c ... ok\ntest result: ok.\n";
        let shown: Vec<_> = failures(text.lines()).collect();
        assert_eq!(
            shown,
            ["failures:", "", "---- b stdout ----", "left: 1", ""]
        );
    }
}
