//! Quantised blocks and packed integers, against ggml's own package and numpy.

use serde_json::Value;
use weightmark::tensor::Dtype;
use weightmark::tensor::blocks::{dequantise, quantise};
use weightmark::tensor::int4::{Int4, Part, Zeros};

use super::support::{Home, python, script};

/// The files that a script of `tests/python` makes, and what it prints.
fn made_by(name: &str) -> (Home, Value) {
    let home = Home::new();
    let printed = python([script(name).to_str().unwrap(), &home.at("")]).json();
    (home, printed)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

#[test]
fn blocks_are_what_ggml_reads_and_writes() {
    let (home, made) = made_by("ggml_blocks.py");
    let (read, written) = (names(&made["read"]), names(&made["written"]));
    assert_eq!((read.len(), written.len()), (26, 8), "{made}");
    for name in read {
        let dtype = Dtype::from_name(name).unwrap();
        let expected = floats(&home.read(&format!("{name}.values")));
        let mut values = vec![0.0; expected.len()];
        assert!(dequantise(dtype, &home.read(&format!("{name}.blocks")), &mut values), "{name}");
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        for (i, (value, expected)) in values.iter().zip(&expected).enumerate() {
            assert!(same(*value, *expected), "{name} {i}: {value} {expected}");
        }
        assert!(values.iter().filter(|value| value.is_finite()).count() > values.len() / 2, "{name}");
    }
    for name in written {
        let dtype = Dtype::from_name(name).unwrap();
        let values = floats(&home.read(&format!("{name}.input")));
        let expected = home.read(&format!("{name}.output"));
        let mut blocks = vec![0; expected.len()];
        assert!(quantise(dtype, &values, &mut blocks), "{name}");
        let (elements, size) = (dtype.block().0 as usize, dtype.block().1 as usize);
        for (i, (block, expected)) in blocks.chunks(size).zip(expected.chunks(size)).enumerate() {
            assert_eq!(block, expected, "{name} {i}: {:?}", &values[i * elements..][..elements]);
        }
    }
}

#[test]
fn packed_integers_are_what_numpy_packed() {
    let (home, made) = made_by("int4_layers.py");
    let layers = made["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 9);
    for made in layers {
        let size = |name: &str| made[name].as_u64().unwrap();
        let (kind, inputs, outputs, groups) = (&made["kind"], size("inputs"), size("outputs"), size("groups"));
        let file = |name: &str| home.read(&format!("{}.{name}", made["prefix"].as_str().unwrap()));
        let (mut qweight, qzeros, scales, codes) = (file("qweight"), file("qzeros"), file("scales"), file("codes"));
        let (zeros_shape, shape, index_shape) = ([groups, outputs / 8], [groups, outputs], [inputs]);
        let qzeros = Part { dtype: Dtype::I32, shape: &zeros_shape, bytes: &qzeros };
        let scales = Part { dtype: Dtype::F16, shape: &shape, bytes: &scales };
        let index = (kind == "gptq").then(|| file("g_idx"));
        let g_idx = index.as_ref().map(|bytes| Part { dtype: Dtype::I32, shape: &index_shape, bytes });
        let packed = [inputs / 8, outputs];
        let layer = match kind.as_str().unwrap() {
            "gptq" => Int4::gptq(&packed, qzeros, scales, g_idx, Zeros::LessOne),
            "gptq_v2" => Int4::gptq(&packed, qzeros, scales, g_idx, Zeros::Plain),
            _ => Int4::awq(&[inputs, outputs / 8], qzeros, scales),
        };
        let layer = layer.unwrap();

        let expected = floats(&file("weights"));
        let mut weights = vec![0.0; expected.len()];
        assert!(layer.weights(&qweight, &mut weights), "{made}");
        assert_eq!(weights, expected, "{made}");

        let (output, input) = (outputs as usize - 3, inputs as usize - 2);
        let at = output * inputs as usize + input;
        assert_eq!(layer.code(&qweight, output, input), Some(codes[at]));
        let up = codes[at] ^ 1;
        assert!(layer.set_code(&mut qweight, output, input, up));
        let step = layer.step(output, input).unwrap() * (f32::from(up) - f32::from(codes[at]));
        assert!(layer.weights(&qweight, &mut weights));
        assert!((weights[at] - expected[at] - step).abs() < 1e-6, "{made}");
        weights[at] = expected[at];
        assert_eq!(weights, expected, "{made}");
    }
}
