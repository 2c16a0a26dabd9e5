//! Clients that get nothing compressed, by their User-Agent (nginx: gzip_disable).

use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};
use topnext_module_api::prelude::*;

/// The clients of the key `disable`.
pub struct Disable {
    /// "msie6" is among the words.
    msie6: bool,
    agents: RegexSet,
}

impl Disable {
    /// Reads the expressions; `None` if one is wrong, which `errors` then says.
    pub fn read(words: &[String], errors: &mut ConfigErrors) -> Option<Disable> {
        let mut patterns = Vec::new();
        let mut valid = true;
        for (i, word) in words.iter().enumerate().filter(|(_, word)| *word != "msie6") {
            // One by one, since an error of a set does not say whose it is.
            if let Err(error) = RegexBuilder::new(word).unicode(false).build() {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let message = format!("found {word:?}, expected a regular expression: {why}");
                let _: Option<()> = errors.add(&format!("disable[{i}]"), message);
                valid = false;
            }
            patterns.push(word);
        }
        let agents = RegexSetBuilder::new(patterns).unicode(false).case_insensitive(true).build();
        let msie6 = words.iter().any(|word| word == "msie6");
        match agents {
            Ok(agents) if valid => Some(Disable { msie6, agents }),
            Err(error) if valid => errors.add("disable", error.to_string()),
            _ => None,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        !self.msie6 && self.agents.is_empty()
    }

    /// Whether this User-Agent is one of them.
    pub fn has(&self, agent: &[u8]) -> bool {
        (self.msie6 && is_msie6(agent)) || self.agents.is_match(agent)
    }
}

/// Internet Explorer 4 to 6, but not 6 with the service pack that mended it.
fn is_msie6(agent: &[u8]) -> bool {
    const MARK: &[u8] = b"MSIE ";
    let Some(at) = agent.windows(MARK.len()).position(|window| window == MARK) else { return false };
    match agent.get(at + MARK.len()..) {
        Some([b'4' | b'5', b'.', _, ..]) => true,
        Some([b'6', b'.', rest @ ..]) if !rest.is_empty() => !rest.windows(3).any(|window| window == b"SV1"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disable(words: &[&str]) -> Result<Disable, Vec<String>> {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        let mut errors = ConfigErrors::new();
        let disable = Disable::read(&words, &mut errors);
        disable.ok_or_else(|| errors.into_vec().iter().map(|e| format!("{}: {}", e.path, e.message)).collect())
    }

    #[test]
    fn expressions_match_anywhere_without_regard_to_case() {
        let agents = disable(&["^curl/", "bot", r"Safari/5\d{2}\.0"]).expect("valid");
        for agent in [&b"curl/7.88"[..], b"Googlebot", b"BOT", b"CURL/1", b"x Safari/534.0 \xff"] {
            assert!(agents.has(agent), "{}", agent.escape_ascii());
        }
        for agent in [&b"libcurl/7"[..], b"", b"Safari/534.1", b"MSIE 6.0; x"] {
            assert!(!agents.has(agent), "{}", agent.escape_ascii());
        }
        assert!(!agents.is_empty() && disable(&[]).expect("valid").is_empty());
    }

    #[test]
    fn old_internet_explorers() {
        let agents = disable(&["msie6"]).expect("valid");
        assert!(!agents.is_empty());
        for agent in ["Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", "MSIE 5.5;", "MSIE 4.01"] {
            assert!(agents.has(agent.as_bytes()), "{agent}");
        }
        for agent in [
            "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)",
            "MSIE 7.0;",
            "MSIE 10.0;",
            "MSIE 6",
            "MSIE 6.",
            "msie6",
        ] {
            assert!(!agents.has(agent.as_bytes()), "{agent}");
        }
    }

    #[test]
    fn names_a_wrong_expression() {
        let errors = disable(&["msie6", "a(", "b"]).err().expect("wrong");
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("disable[1]: found \"a(\", expected a regular expression: "), "{errors:?}");
        assert!(disable(&["a{1000}{1000}"]).is_err(), "too large");
    }
}
