//! Strict JSON, read straight into types: what two parsers could read in two ways is refused.
//!
//! `serde` alone takes a list for a struct, and `serde_json` the last of two equal keys; the types here do not. Nothing
//! builds a tree of a document that nobody vouches for, so memory stays in proportion to what is kept of it. Depth is
//! bounded by `serde_json` (128 levels), size by the callers, who cap before they read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Number, Value};

/// Parses a whole document, one object, into `T`.
#[cfg_attr(not(any(feature = "encryption", feature = "signing")), allow(dead_code))]
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map(|Object(value)| value).map_err(|e| e.to_string())
}

/// The value of a key that may be absent, but not `null`.
#[cfg_attr(not(any(feature = "encryption", feature = "signing")), allow(dead_code))]
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A struct that is written as an object, and not as a list of its fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(access)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Bytes as lower-case hexadecimal digits.
#[cfg_attr(not(feature = "watermark"), allow(dead_code))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hex<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.map(|byte| format!("{byte:02x}")).concat())
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let malformed = || de::Error::custom(format!("not {} bytes in lower-case hexadecimal", N));
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(malformed()) };
        let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
        let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(malformed)
    }
}

/// A list of at most `N` elements.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct AtMost<T, const N: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
            type Value = AtMost<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<AtMost<T, N>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = access.next_element()? {
                    if list.len() == N {
                        return Err(de::Error::invalid_length(N + 1, &self));
                    }
                    list.push(element);
                }
                Ok(AtMost(list))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// A map that refuses to name a key twice, escapes resolved.
#[derive(Debug)]
pub(crate) struct UniqueMap<V>(pub(crate) BTreeMap<String, V>);

impl<V> Default for UniqueMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
            type Value = UniqueMap<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueMap<V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(key) = access.next_key::<String>()? {
                    if map.contains_key(&key) {
                        return Err(de::Error::custom(Duplicate(&key)));
                    }
                    map.insert(key, access.next_value()?);
                }
                Ok(UniqueMap(map))
            }
        }
        deserializer.deserialize_map(Unique(PhantomData))
    }
}

pub(crate) struct Duplicate<'a>(pub(crate) &'a str);

impl fmt::Display for Duplicate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "duplicate key {:?}", self.0)
    }
}

/// Any JSON value, read strictly and forgotten: no object in it names a key twice, or has more keys than anyone needs.
#[cfg_attr(not(feature = "signing"), allow(dead_code))]
#[derive(Debug)]
pub(crate) struct Checked;

/// Most keys of an object that is [`Checked`].
const MAX_KEYS: usize = 1 << 16;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Checked;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
                Ok(Checked)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
                Ok(Checked)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
                Ok(Checked)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
                Ok(Checked)
            }
            fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
                Ok(Checked)
            }
            fn visit_unit<E>(self) -> Result<Checked, E> {
                Ok(Checked)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Checked, A::Error> {
                while let Some(Checked) = access.next_element()? {}
                Ok(Checked)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Checked, A::Error> {
                let mut keys = BTreeSet::new();
                while let Some(key) = access.next_key::<String>()? {
                    if keys.contains(&key) || keys.len() == MAX_KEYS {
                        return Err(de::Error::custom(Duplicate(&key)));
                    }
                    keys.insert(key);
                    let Checked = access.next_value()?;
                }
                Ok(Checked)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Any JSON value as a tree, read strictly: for documents that are authenticated already.
#[cfg_attr(not(feature = "signing"), allow(dead_code))]
#[derive(Debug)]
pub(crate) struct Strict(pub(crate) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Strict, E> {
                let number = Number::from_f64(v).ok_or_else(|| E::custom("number out of range"))?;
                Ok(Strict(number.into()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(value)) = access.next_element()? {
                    list.push(value);
                }
                Ok(Strict(list.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Strict, A::Error> {
                let UniqueMap::<Strict>(map) = UniqueMap::deserialize(MapAccessDeserializer::new(access))?;
                let map: Map<String, Value> = map.into_iter().map(|(key, Strict(value))| (key, value)).collect();
                Ok(Strict(map.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_refused_at_every_level() {
        let parse = |text: &[u8]| serde_json::from_slice::<Strict>(text);
        assert!(parse(br#"{"a":[{"b":1.5,"c":null}],"d":true,"e":-1}"#).is_ok());
        for text in [r#"{"a":1,"a":2}"#, r#"[{"x":{"a":1,"\u0061":1}}]"#, "[1] x", "", "{\"a\":1,}", "\u{feff}{}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse("[".repeat(20_000).as_bytes()).is_err());
    }

    #[test]
    fn a_struct_is_an_object_and_a_bounded_list_is_bounded() {
        #[derive(Debug, serde::Deserialize)]
        struct Point {
            x: AtMost<u8, 2>,
        }
        assert_eq!(parse::<Point>(br#"{"x":[1,2]}"#).unwrap().x.0, [1, 2]);
        for text in ["[[1]]", r#"{"x":[1,2,3]}"#, r#"{"x":[1],"x":[1]}"#, r#"{"x":{}}"#] {
            assert!(parse::<Point>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
