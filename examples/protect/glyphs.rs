//! A small optical character reader, trained in seconds.
//!
//! It reads the 94 printable ASCII glyphs of an 8x8 pixel font from 14x14 pixel pictures in which each glyph is
//! shifted, faded and buried in noise. Three dense layers with ReLU learn this by stochastic gradient descent with
//! momentum, on fresh pictures at every step. One seed determines everything: on one machine, training again gives the
//! same weights bit for bit.

use std::f32::consts::TAU;

use font8x8::legacy::BASIC_LEGACY;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayViewMut1, Axis};

/// A multilayer perceptron from the pixels of a picture to one score per glyph.
pub(crate) struct Reader {
    pub(crate) layers: Vec<Layer>,
}

/// A dense layer: `output = input · weightᵀ + bias`.
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    /// `[out, in]`
    pub(crate) weight: Array2<f32>,
    /// `[out]`
    pub(crate) bias: Array1<f32>,
}

/// Trains a reader for `steps` minibatches of fresh pictures.
pub(crate) fn train(seed: u64, steps: usize) -> Reader {
    let mut random = SplitMix64(seed);
    let mut reader = Reader::with_weights(|fan_in| (2.0 / fan_in as f32).sqrt() * random.normal()); // He et al. 2015
    let mut velocity = Reader::with_weights(|_| 0.0);
    for step in 0..steps {
        let progress = step as f32 / steps as f32;
        let rate = LEARNING_RATE * (1.0 - progress);
        let (pictures, glyphs) = draw_batch(&mut random, BATCH);
        reader.descend(&mut velocity, rate, pictures, &glyphs);
    }
    reader
}

impl Reader {
    /// The fraction of `pictures` fresh pictures it reads correctly; held out if `seed` is not the training seed.
    pub(crate) fn accuracy(&self, seed: u64, pictures: usize) -> f64 {
        let mut random = SplitMix64(seed);
        let mut correct = 0;
        for start in (0..pictures).step_by(BATCH) {
            let (batch, glyphs) = draw_batch(&mut random, BATCH.min(pictures - start));
            let read = self.read(batch);
            correct += read.iter().zip(&glyphs).filter(|(read, drawn)| read == drawn).count();
        }
        correct as f64 / pictures as f64
    }

    /// Every parameter as name, shape and row-major values: `hidden.0.weight`, `hidden.0.bias`, ...
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut tensors = Vec::with_capacity(2 * self.layers.len());
        for Layer { name, weight, bias } in &self.layers {
            tensors.push((format!("{name}.weight"), weight.shape().to_vec(), weight.iter().copied().collect()));
            tensors.push((format!("{name}.bias"), bias.shape().to_vec(), bias.to_vec()));
        }
        tensors
    }

    /// The reader whose [`tensors`](Self::tensors) `get` looks up by name; `None` if one is missing or misshapen.
    pub(crate) fn from_tensors(get: impl Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>) -> Option<Self> {
        let mut reader = Self::with_weights(|_| 0.0);
        for Layer { name, weight, bias } in &mut reader.layers {
            let (shape, values) = get(&format!("{name}.weight"))?;
            *weight = (shape == weight.shape()).then(|| Array2::from_shape_vec(weight.dim(), values).ok())??;
            let (shape, values) = get(&format!("{name}.bias"))?;
            *bias = (shape == bias.shape()).then(|| Array1::from_shape_vec(bias.dim(), values).ok())??;
        }
        Some(reader)
    }

    /// A reader with zero biases and with weights made from the number of inputs of their layer.
    fn with_weights(mut weight: impl FnMut(usize) -> f32) -> Self {
        let mut inputs = PIXELS;
        let layer = |(name, outputs)| {
            let weight = Array2::from_shape_simple_fn((outputs, inputs), || weight(inputs));
            inputs = outputs;
            Layer { name, weight, bias: Array1::zeros(outputs) }
        };
        Self { layers: LAYERS.into_iter().map(layer).collect() }
    }

    /// The glyph with the highest score, for each row of `pictures` `[batch, 196]`.
    fn read(&self, pictures: Array2<f32>) -> Vec<usize> {
        let activations = self.forward(pictures);
        let best = |scores: ndarray::ArrayView1<'_, f32>| {
            (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0)
        };
        activations[self.layers.len()].rows().into_iter().map(best).collect()
    }

    /// The input of every layer, then the scores `[batch, 94]`.
    fn forward(&self, pictures: Array2<f32>) -> Vec<Array2<f32>> {
        let mut activations = vec![pictures];
        for (depth, layer) in self.layers.iter().enumerate() {
            let mut output = activations[depth].dot(&layer.weight.t()) + &layer.bias;
            if depth + 1 < self.layers.len() {
                output.mapv_inplace(|z| z.max(0.0));
            }
            activations.push(output);
        }
        activations
    }

    /// One step down the gradient of the mean cross-entropy, by backpropagation.
    fn descend(&mut self, velocity: &mut Self, rate: f32, pictures: Array2<f32>, glyphs: &[usize]) {
        let mut activations = self.forward(pictures);
        let Some(scores) = activations.pop() else { return };
        let mut error = cross_entropy_gradient(scores, glyphs);
        for ((layer, velocity), input) in self.layers.iter_mut().zip(&mut velocity.layers).zip(&activations).rev() {
            let mut error_below = error.dot(&layer.weight);
            error_below.zip_mut_with(input, |e, &a| *e = if a > 0.0 { *e } else { 0.0 });

            general_mat_mul(1.0, &error.t(), input, MOMENTUM, &mut velocity.weight);
            velocity.bias = MOMENTUM * &velocity.bias + error.sum_axis(Axis(0));
            layer.weight *= 1.0 - rate * WEIGHT_DECAY;
            layer.weight.scaled_add(-rate, &velocity.weight);
            layer.bias.scaled_add(-rate, &velocity.bias);
            error = error_below;
        }
    }
}

const FIRST_GLYPH: usize = b'!' as usize;
const GLYPHS: usize = 94;
const GLYPH_SIDE: usize = 8;
const CANVAS_SIDE: usize = 14;
const PIXELS: usize = CANVAS_SIDE * CANVAS_SIDE;

/// Names and numbers of outputs.
const LAYERS: [(&str, usize); 3] = [("hidden.0", 512), ("hidden.1", 256), ("output", GLYPHS)];

const BATCH: usize = 64;
const LEARNING_RATE: f32 = 0.1;
const MOMENTUM: f32 = 0.9;
const WEIGHT_DECAY: f32 = 1e-4;
const NOISE: f32 = 0.2;

/// The gradient of the mean softmax cross-entropy with respect to `scores` `[batch, 94]`.
fn cross_entropy_gradient(mut scores: Array2<f32>, glyphs: &[usize]) -> Array2<f32> {
    let batch = glyphs.len() as f32;
    for (mut row, &glyph) in scores.rows_mut().into_iter().zip(glyphs) {
        let highest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b)); // keeps exp() finite
        row.mapv_inplace(|score| (score - highest).exp());
        row /= row.sum() * batch;
        row[glyph] -= 1.0 / batch;
    }
    scores
}

fn draw_batch(random: &mut SplitMix64, count: usize) -> (Array2<f32>, Vec<usize>) {
    let mut pictures = Array2::zeros((count, PIXELS));
    let glyphs = pictures.rows_mut().into_iter().map(|picture| draw(random, picture)).collect();
    (pictures, glyphs)
}

fn draw(random: &mut SplitMix64, mut picture: ArrayViewMut1<'_, f32>) -> usize {
    let glyph = random.below(GLYPHS);
    let top = random.below(CANVAS_SIDE - GLYPH_SIDE + 1);
    let left = random.below(CANVAS_SIDE - GLYPH_SIDE + 1);
    let paper = random.uniform() - 0.5;
    let contrast = 0.5 + 0.5 * random.uniform();
    let noise: f32 = std::env::var("NOISE").ok().and_then(|x| x.parse().ok()).unwrap_or(NOISE);
    picture.mapv_inplace(|_| paper + noise * random.normal());
    for (y, row) in BASIC_LEGACY[FIRST_GLYPH + glyph].iter().enumerate() {
        for x in (0..GLYPH_SIDE).filter(|x| row >> x & 1 == 1) {
            picture[(top + y) * CANVAS_SIDE + left + x] += contrast;
        }
    }
    glyph
}

/// Steele, Lea and Flood's SplitMix64: fast, reproducible random numbers for data, never for secrets.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `(0, 1]`
    fn uniform(&mut self) -> f32 {
        ((self.next() >> 40) + 1) as f32 / (1 << 24) as f32
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Box-Muller
    fn normal(&mut self) -> f32 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}
