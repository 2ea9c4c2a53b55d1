//! The tokens of uncased BERT, for sentences without accents.

use std::collections::HashMap;

/// A vocabulary: the words and pieces of words that have a number.
pub(crate) struct WordPiece {
    ids: HashMap<String, u32>,
    special: [u32; 3],
}

impl WordPiece {
    /// Reads `vocab.txt`: a token a line, numbered from 0.
    pub(crate) fn new(vocabulary: &str) -> Result<Self, String> {
        let ids: HashMap<_, _> = vocabulary.lines().zip(0..).map(|(token, id)| (token.to_owned(), id)).collect();
        let id = |token: &str| ids.get(token).copied().ok_or(format!("no {token} in the vocabulary"));
        Ok(Self { special: [id("[CLS]")?, id("[SEP]")?, id("[UNK]")?], ids })
    }

    /// The tokens of a sentence, between the two that mark its beginning and its end.
    pub(crate) fn ids(&self, sentence: &str) -> Vec<u32> {
        let [begin, end, _] = self.special;
        let spaced: String = sentence.chars().flat_map(spaced).collect();
        let words = spaced.split_whitespace().flat_map(|word| self.pieces(&word.to_lowercase()));
        [begin].into_iter().chain(words).chain([end]).collect()
    }

    /// The longest piece that the vocabulary has, then the longest of what is left.
    fn pieces(&self, word: &str) -> Vec<u32> {
        let (mut pieces, mut start) = (Vec::new(), 0);
        while start < word.len() {
            let prefix = if start == 0 { "" } else { "##" };
            let ends = (start + 1..=word.len()).rev().filter(|end| word.is_char_boundary(*end));
            let found = ends.map(|end| (end, format!("{prefix}{}", &word[start..end])));
            match found.filter_map(|(end, piece)| Some((end, *self.ids.get(&piece)?))).next() {
                Some((end, id)) => (pieces.push(id), start = end).0,
                None => return vec![self.special[2]],
            }
        }
        pieces
    }
}

/// Punctuation stands alone.
fn spaced(c: char) -> impl Iterator<Item = char> {
    let around = c.is_ascii_punctuation().then_some(' ');
    around.into_iter().chain([c]).chain(around)
}
