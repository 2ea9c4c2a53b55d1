//! A small optical character reader that learns its letters in seconds.
//!
//! It reads the 94 printable ASCII glyphs of an 8x8 pixel font from pictures of 14x14 pixels, in which every glyph is
//! shifted, faded and covered with noise. Three dense layers with ReLU between them learn this by stochastic gradient
//! descent with momentum, from fresh pictures at every step. The seed determines everything: training again on the same
//! machine gives the same weights, bit for bit.

use std::f32::consts::TAU;

use font8x8::legacy::BASIC_LEGACY;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array, Array1, Array2, ArrayView1, ArrayViewMut1, Axis, Dimension};

/// A multilayer perceptron, from the 196 pixels of a picture to a score for each of the 94 glyphs.
pub(crate) struct Reader {
    /// From the pixels to the scores.
    pub(crate) layers: Vec<Layer>,
}

/// A dense layer: `output = weight · input + bias`.
pub(crate) struct Layer {
    /// What its tensors are named after: `hidden.0`, `hidden.1` or `output`.
    pub(crate) name: &'static str,
    /// `[out, in]`
    pub(crate) weight: Array2<f32>,
    /// `[out]`
    pub(crate) bias: Array1<f32>,
}

/// Trains a reader on `steps` minibatches of 64 fresh pictures; after 2000 it reads about 96 % correctly.
pub(crate) fn train(seed: u64, steps: usize) -> Reader {
    let mut random = SplitMix64(seed);
    // He initialisation: with weights of this variance, ReLU layers neither amplify nor damp the signal.
    let mut reader = Reader::new(|inputs| (2.0 / inputs as f32).sqrt() * random.normal());
    let mut velocity = Reader::new(|_| 0.0);
    for step in 0..steps {
        let rate = LEARNING_RATE * (1.0 - step as f32 / steps as f32);
        let (pictures, glyphs) = draw_batch(&mut random, BATCH_SIZE);
        reader.descend(&mut velocity, rate, pictures, &glyphs);
    }
    reader
}

impl Reader {
    /// The fraction, 0 to 1, that it reads correctly of so many fresh pictures. They are held out of training if their
    /// seed is not that of the training.
    pub(crate) fn accuracy(&self, seed: u64, pictures: usize) -> f64 {
        let mut random = SplitMix64(seed);
        let mut correct = 0;
        for start in (0..pictures).step_by(BATCH_SIZE) {
            let (batch, drawn) = draw_batch(&mut random, BATCH_SIZE.min(pictures - start));
            let (_, scores) = self.forward(batch);
            correct += scores.rows().into_iter().zip(drawn).filter(|&(row, glyph)| highest(row) == glyph).count();
        }
        correct as f64 / pictures as f64
    }

    /// Every tensor as its name, shape and row-major values: `hidden.0.weight`, `hidden.0.bias` and so on.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut tensors = Vec::with_capacity(2 * self.layers.len());
        for Layer { name, weight, bias } in &self.layers {
            tensors.push((format!("{name}.weight"), weight.shape().to_vec(), weight.iter().copied().collect()));
            tensors.push((format!("{name}.bias"), bias.shape().to_vec(), bias.to_vec()));
        }
        tensors
    }

    /// The reader made of the [tensors](Self::tensors) that `get` finds by name; `None` if one is missing or misshapen.
    pub(crate) fn from_tensors(get: impl Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>) -> Option<Self> {
        let mut reader = Self::new(|_| 0.0);
        for Layer { name, weight, bias } in &mut reader.layers {
            load(weight, get(&format!("{name}.weight")))?;
            load(bias, get(&format!("{name}.bias")))?;
        }
        Some(reader)
    }

    /// A reader without biases; `weight` makes each weight, given the number of inputs of its layer.
    fn new(mut weight: impl FnMut(usize) -> f32) -> Self {
        let mut inputs = PIXELS;
        let layers = LAYERS.map(|(name, outputs)| {
            let weight = Array2::from_shape_simple_fn((outputs, inputs), || weight(inputs));
            inputs = outputs;
            Layer { name, weight, bias: Array1::zeros(outputs) }
        });
        Self { layers: layers.into() }
    }

    /// The input of each layer, `[batch, in]`, and the scores that come out of the last, `[batch, 94]`.
    fn forward(&self, pictures: Array2<f32>) -> (Vec<Array2<f32>>, Array2<f32>) {
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut signal = pictures;
        for (depth, layer) in self.layers.iter().enumerate() {
            if depth > 0 {
                signal.mapv_inplace(|x| x.max(0.0));
            }
            let output = signal.dot(&layer.weight.t()) + &layer.bias;
            inputs.push(signal);
            signal = output;
        }
        (inputs, signal)
    }

    /// Takes one step down the slope of the cross-entropy, which backpropagation finds layer by layer.
    fn descend(&mut self, velocity: &mut Self, rate: f32, pictures: Array2<f32>, glyphs: &[usize]) {
        let (inputs, scores) = self.forward(pictures);
        let mut gradient = cross_entropy_gradient(scores, glyphs);
        for (depth, input) in inputs.iter().enumerate().rev() {
            let layer = &mut self.layers[depth];
            let velocity = &mut velocity.layers[depth];
            general_mat_mul(1.0, &gradient.t(), input, MOMENTUM, &mut velocity.weight);
            velocity.bias *= MOMENTUM;
            velocity.bias += &gradient.sum_axis(Axis(0));

            if depth > 0 {
                gradient = gradient.dot(&layer.weight);
                gradient.zip_mut_with(input, |slope, &x| *slope = if x > 0.0 { *slope } else { 0.0 });
            }

            layer.weight *= 1.0 - rate * WEIGHT_DECAY;
            layer.weight.scaled_add(-rate, &velocity.weight);
            layer.bias.scaled_add(-rate, &velocity.bias);
        }
    }
}

const FIRST_GLYPH: usize = b'!' as usize;
const GLYPHS: usize = 94;

/// Sides of a glyph and of a picture, in pixels.
const GLYPH_SIDE: usize = 8;
const PICTURE_SIDE: usize = 14;
const PIXELS: usize = PICTURE_SIDE * PICTURE_SIDE;

/// How far from the centre a glyph may lie, in pixels along each axis.
const SHIFT: usize = 2;

/// Standard deviation of the noise of a pixel; ink differs from its background by 0.5 to 1.
const NOISE: f32 = 0.15;

/// The name of each layer and the number of its outputs.
const LAYERS: [(&str, usize); 3] = [("hidden.0", 512), ("hidden.1", 256), ("output", GLYPHS)];

const BATCH_SIZE: usize = 64;
const LEARNING_RATE: f32 = 0.15;
const MOMENTUM: f32 = 0.9;
const WEIGHT_DECAY: f32 = 1e-3;

/// Replaces the values of `array` by those of a tensor of the same shape.
fn load<D: Dimension>(array: &mut Array<f32, D>, tensor: Option<(Vec<usize>, Vec<f32>)>) -> Option<()> {
    let (_, values) = tensor.filter(|(shape, _)| shape == array.shape())?;
    *array = Array::from_shape_vec(array.raw_dim(), values).ok()?;
    Some(())
}

/// The glyph with the highest score.
fn highest(scores: ArrayView1<'_, f32>) -> usize {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0)
}

/// The gradient of the batch's mean cross-entropy in the scores, `[batch, 94]`: softmax less the truth.
fn cross_entropy_gradient(mut scores: Array2<f32>, glyphs: &[usize]) -> Array2<f32> {
    for (mut row, &glyph) in scores.rows_mut().into_iter().zip(glyphs) {
        let max = row.fold(f32::NEG_INFINITY, |max, &score| max.max(score));
        row.mapv_inplace(|score| (score - max).exp()); // without `- max`, a high score would overflow
        row /= row.sum();
        row[glyph] -= 1.0;
    }
    scores / glyphs.len() as f32
}

/// Draws pictures, `[count, 196]`, and tells which glyphs they show.
fn draw_batch(random: &mut SplitMix64, count: usize) -> (Array2<f32>, Vec<usize>) {
    let mut pictures = Array2::zeros((count, PIXELS));
    let glyphs = pictures.rows_mut().into_iter().map(|picture| draw(random, picture)).collect();
    (pictures, glyphs)
}

/// Draws a random glyph, somewhere near the centre, brighter than its background, and tells which.
fn draw(random: &mut SplitMix64, mut picture: ArrayViewMut1<'_, f32>) -> usize {
    let glyph = random.below(GLYPHS);
    let mut offset = || (PICTURE_SIDE - GLYPH_SIDE) / 2 - SHIFT + random.below(2 * SHIFT + 1);
    let (top, left) = (offset(), offset());
    let background = random.between(-0.25, 0.25);
    let contrast = random.between(0.5, 1.0);

    picture.mapv_inplace(|_| background + NOISE * random.normal());
    for (y, row) in BASIC_LEGACY[FIRST_GLYPH + glyph].into_iter().enumerate() {
        for x in (0..GLYPH_SIDE).filter(|x| row >> x & 1 == 1) {
            picture[(top + y) * PICTURE_SIDE + left + x] += contrast;
        }
    }
    glyph
}

/// The SplitMix64 generator of Steele, Lea and Flood: small, fast and reproducible. It is for data, not for secrets.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer less than `bound`; so small a bound makes the bias of `%` negligible.
    fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }

    /// Uniform above `low`, up to and including `high`.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Normal with mean 0 and standard deviation 1, by the Box-Muller transform.
    fn normal(&mut self) -> f32 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// Uniform above 0, so that it has a logarithm, up to and including 1, in steps of 2⁻²⁴, the precision of `f32`.
    fn unit(&mut self) -> f32 {
        ((self.next_u64() >> 40) + 1) as f32 / (1 << 24) as f32
    }
}
