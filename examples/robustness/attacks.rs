//! What thieves do, all of it.

use std::path::PathBuf;

use crate::Result;
use crate::chain::{chains, symmetries};
use crate::collude::{Strategy, collude};
use crate::lab::{COPIES, Lab};
use crate::model::Weights;
use crate::quantise::{Group, to_bf16, to_f16, to_fp8, to_integers};
use crate::tuning::{DESTRUCTIVE, GENTLE, LORA};
use crate::{merge, noise, prune};

/// One row of the table.
pub(crate) struct Attack {
    /// What is done.
    pub(crate) name: String,
    /// Makes the suspect; `None` where something needed for it is missing.
    pub(crate) make: Box<Make>,
    /// How many copies go into it, the first ones.
    pub(crate) leaked: usize,
    /// Whether it takes minutes.
    pub(crate) is_slow: bool,
    /// A model that the owner knows it was merged with.
    pub(crate) partner: Option<fn(&Weights) -> Weights>,
}

type Make = dyn Fn(&Lab) -> Result<Option<Content>>;

/// A suspect.
pub(crate) enum Content {
    /// To be written as safetensors.
    Weights(Weights),
    /// A file that was written, to be removed, and how much its weights changed.
    File(PathBuf, Option<f64>),
}

impl Attack {
    /// On the weights of the marked copy alone.
    pub(crate) fn new(name: impl Into<String>, f: impl Fn(&Weights) -> Weights + 'static) -> Self {
        Self::on(name, move |lab| Ok(Some(f(&lab.marked))))
    }

    /// On whatever there is.
    pub(crate) fn on(name: impl Into<String>, f: impl Fn(&Lab) -> Result<Option<Weights>> + 'static) -> Self {
        let make = move |lab: &Lab| Ok(f(lab)?.map(Content::Weights));
        Self { name: name.into(), make: Box::new(make), leaked: 1, is_slow: false, partner: None }
    }

    /// Left out by `--quick`.
    pub(crate) fn slow(self) -> Self {
        Self { is_slow: true, ..self }
    }
}

/// All attacks on the model of the laboratory.
pub(crate) fn attacks(lab: &Lab) -> Vec<Attack> {
    let (symmetries, chains) = match lab.anatomy() {
        Some(anatomy) => (symmetries(&anatomy), chains(&anatomy)),
        None => Default::default(),
    };
    let lists = [
        controls(),
        numbers(),
        files(),
        pruned(lab),
        added(),
        merged(),
        symmetries,
        fine_tunes(),
        chains,
        collusions(),
    ];
    lists.into_iter().flatten().collect()
}

/// Nothing at all, and a model that was never marked.
fn controls() -> Vec<Attack> {
    let unmarked = Attack::on("unmarked", |lab| Ok(Some(lab.original.clone())));
    let unmarked_int4 = Attack::on("unmarked, int4 g32", |lab| Ok(Some(to_integers(&lab.original, 4, Group::Of(32)))));
    let mut controls = vec![unmarked, unmarked_int4];
    controls.iter_mut().for_each(|control| control.leaked = 0);
    let unmarked_bf16 = Attack::on("unmarked, bf16", |lab| Ok(Some(to_bf16(&lab.original))));
    controls.push(Attack { leaked: 0, ..unmarked_bf16 });
    controls.push(Attack::new("none", Weights::clone));
    controls
}

fn numbers() -> Vec<Attack> {
    let integers = [
        ("int8, row", 8, Group::Row),
        ("int8, tensor", 8, Group::Tensor),
        ("int4 g32", 4, Group::Of(32)),
        ("int4 g128", 4, Group::Of(128)),
        ("int3 g128", 3, Group::Of(128)),
        ("int2 g32", 2, Group::Of(32)),
    ];
    let casts = [Attack::new("f16", to_f16), Attack::new("bf16", to_bf16), Attack::new("fp8 e4m3", to_fp8)];
    let integers = integers
        .into_iter()
        .map(|(name, bits, group)| Attack::new(name, move |weights| to_integers(weights, bits, group)));
    casts.into_iter().chain(integers).collect()
}

/// llama.cpp's own quantisers, in its own files.
fn files() -> Vec<Attack> {
    let types = ["Q8_0", "Q5_0", "Q4_0", "Q4_K_M", "Q4_K", "Q3_K", "Q2_K"];
    let attack = |kind: &'static str| {
        let make = move |lab: &Lab| {
            let out = lab.path("suspect.gguf");
            let (from, model) = (lab.copy(0)?, lab.model.as_os_str());
            let printed =
                lab.script("examples/robustness/ggml.py", [from.as_os_str(), out.as_os_str(), kind.as_ref(), model])?;
            Ok(printed.map(|change| Content::File(out, change.parse().ok())))
        };
        Attack { name: format!("GGUF {kind}"), make: Box::new(make), leaked: 1, is_slow: false, partner: None }
    };
    types.into_iter().map(attack).collect()
}

fn pruned(lab: &Lab) -> Vec<Attack> {
    let layers = prune::layers(&lab.marked);
    let mut attacks: Vec<_> = [30, 50, 70, 90, 95]
        .into_iter()
        .map(|part| {
            Attack::new(format!("prune {part} %"), move |weights| prune::prune(weights, f64::from(part) / 100.0))
        })
        .collect();
    attacks.push(Attack::new("prune 50 %, int4 g32", |weights| {
        to_integers(&prune::prune(weights, 0.5), 4, Group::Of(32))
    }));
    attacks.push(Attack::new("without embeddings", prune::without_embeddings));
    if layers > 1 {
        let middle = layers / 2;
        attacks.push(Attack::new("one layer leaked", move |weights| prune::only_layer(weights, middle)));
        let kept: Vec<_> = (0..layers).rev().step_by(2).collect();
        attacks.push(Attack::new("half of the layers dropped, the others reversed", move |weights| {
            prune::keep_layers(weights, &kept)
        }));
        attacks.push(Attack::new("a feed-forward network replaced", move |weights| {
            prune::replace_feed_forward(weights, middle)
        }));
    }
    attacks
}

fn added() -> Vec<Attack> {
    let noise = [1, 10, 30, 100].into_iter().map(|percent| {
        Attack::new(format!("noise {percent} %"), move |weights| noise::noise(weights, percent as f32 / 100.0))
    });
    let low_rank = [0.05, 0.5].into_iter().map(|relative| {
        Attack::new(format!("random LoRA of rank 16, {relative}"), move |weights| {
            noise::low_rank(weights, 16, relative)
        })
    });
    let overwritten = [1.0, 10.0]
        .into_iter()
        .map(|times| Attack::on(format!("overwritten at {times}x"), move |lab| Ok(Some(lab.overwritten(times)?))));
    noise.chain(low_rank).chain([Attack::new("SVD, half the rank", noise::half_rank)]).chain(overwritten).collect()
}

/// True fine-tunes, whole and as LoRA, and merges with one.
fn fine_tunes() -> Vec<Attack> {
    let slow = |name: &str, f: fn(&Lab) -> Result<Option<Weights>>| Attack::on(name, f).slow();
    let lora = [0.5, 1.0, 4.0].into_iter().map(|strength| {
        let merge = move |lab: &Lab| Ok(LORA.of(lab)?.map(|tuned| merge::along(&lab.marked, &tuned, strength)));
        Attack::on(format!("LoRA of rank 16, merged at {strength}"), merge).slow()
    });
    let whole = [
        slow("fine-tuned, rate 5e-5", |lab| GENTLE.of(lab)),
        slow("fine-tuned, rate 5e-4", |lab| DESTRUCTIVE.of(lab)),
        slow("fine-tuned, rate 5e-5, int4 g32", |lab| {
            Ok(GENTLE.of(lab)?.map(|tuned| to_integers(&tuned, 4, Group::Of(32))))
        }),
        slow("merged 50/50 with a sibling, fine-tuned at 5e-4", |lab| {
            let sibling = DESTRUCTIVE.of(lab)?.map(|tuned| merge::transplant(&lab.original, &lab.marked, &tuned));
            Ok(sibling.map(|sibling| merge::half(&lab.marked, &sibling)))
        }),
    ];
    whole.into_iter().chain(lora).collect()
}

fn merged() -> Vec<Attack> {
    let half = |weights: &Weights| merge::half(weights, &merge::unrelated(weights));
    vec![
        Attack::new("merged 50/50 with an unknown, unrelated model", half),
        Attack { partner: Some(merge::unrelated), ..Attack::new("merged 50/50 with a known, unrelated model", half) },
    ]
}

fn collusions() -> Vec<Attack> {
    let sizes = [2, 4, 8, COPIES];
    let attack = |size: usize, (name, strategy): (&'static str, Strategy)| {
        let make = move |lab: &Lab| {
            let copies = (0..size).map(|copy| lab.copy(copy)).collect::<Result<Vec<_>>>()?;
            Ok(Some(Content::Weights(collude(&copies, strategy)?)))
        };
        Attack {
            name: format!("{size} copies, {name}"),
            make: Box::new(make),
            leaked: size,
            is_slow: size > 4,
            partner: None,
        }
    };
    sizes.into_iter().flat_map(|size| Strategy::ALL.map(|strategy| attack(size, strategy))).collect()
}
