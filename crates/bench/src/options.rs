//! The command line.

use std::ffi::OsString;

use esvit_bench::{BenchCase, Subject, models};
use esvit_engine::spec::{PrecisionSpec, TrainerSpec};
use lexopt::prelude::*;

pub const USAGE: &str = "\
esvit-bench: what the engine costs on this machine

  esvit-bench ops          every operator of a training step, at the shapes it has there
  esvit-bench step         a training step, split by part and operator
  esvit-bench inference    pooled features of images
  esvit-bench loss         last layer, view and region loss, forward and backward
  esvit-bench attention    window attention, with its projections and without, forward, forward and backward
  esvit-bench all          all of these
  esvit-bench NAME         one of the four: window_attention, window_attention_forward, window_attention_core, window_attention_core_forward

  --device cpu|gpu         where (cpu)
  --precision f32|mixed    of matrix products (f32)
  --threads N,N            compute threads, one measurement for each (0: one a core)
  --batch-size N,N         images, one measurement for each (step, loss, ops 2; attention 8; inference 1, 8, 32)
  --arch NAME              swin_tiny, swin_small, swin_base, swin_large (swin_tiny)
  --window N               side of a window in tokens (7)
  --prototypes K           of both heads (65536)
  --global-size PX         side of the two global crops and of inference's images (224)
  --local-size PX          side of the local crops (96)
  --local-count N          local crops an image (8)
  --region on|off          the region loss (on)
  --checkpointing on|off   of step: blocks are recomputed in the backward pass, and no logits are stored (off)
  --runs N                 runs that count (5)
  --warm-up N              runs before them (1)
  --only NAME              of ops: those whose name begins so
  --json                   one JSON object
  --paced                  one run for each line on standard input, and its time on standard output: for interleaving programs
";

#[derive(Debug)]
pub struct Options {
    pub subjects: Vec<Subject>,
    pub gpu: bool,
    pub threads: Vec<usize>,
    /// Numbers of images; empty for the usual ones of the subject.
    batches: Vec<usize>,
    pub spec: TrainerSpec,
    pub runs: usize,
    pub warm_up: usize,
    pub only: Option<String>,
    pub json: bool,
    pub paced: bool,
}

impl Options {
    /// Numbers of images to measure.
    pub fn batches(&self, subject: Subject) -> Vec<usize> {
        match subject {
            _ if !self.batches.is_empty() => self.batches.clone(),
            Subject::Operators | Subject::Case(BenchCase::Step | BenchCase::Loss) => vec![2],
            Subject::Case(BenchCase::Attention { .. }) => vec![8],
            Subject::Case(BenchCase::Inference) => vec![1, 8, 32],
        }
    }
}

#[derive(Debug)]
pub enum Parsed {
    Run(Box<Options>),
    Help,
}

/// Options, or one sentence that says what is wrong.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, String> {
    read(words).map_err(|error| error.to_string())
}

fn read(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(words);
    let mut subjects: Option<Vec<Subject>> = None;
    let mut arch = "swin_tiny".to_string();
    let (mut threads, mut batches) = (vec![0], Vec::new());
    let (mut gpu, mut json, mut paced, mut only) = (false, false, false, None);
    let (mut runs, mut warm_up, mut window) = (5, 1, 7);
    // Changes of the specification, made when the architecture is known.
    type Change = Box<dyn FnOnce(&mut TrainerSpec)>;
    let mut changes: Vec<Change> = Vec::new();
    while let Some(arg) = parser.next()? {
        let flag = match arg {
            Value(word) if subjects.is_none() => {
                subjects = Some(subjects_of(&word.string()?)?);
                continue;
            }
            Value(word) => return Err(format!("one subject at a time, got another one: {}", word.string()?).into()),
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Short('d') => "device".to_string(),
            Long(name) => name.to_string(),
            Short(_) => return Err(arg.unexpected()),
        };
        let number =
            |parser: &mut lexopt::Parser, least: usize| -> Result<usize, lexopt::Error> { whole(&flag, &parser.value()?.string()?, least) };
        let list = |parser: &mut lexopt::Parser, least: usize| -> Result<Vec<usize>, lexopt::Error> {
            parser.value()?.string()?.split(',').map(|part| whole(&flag, part, least)).collect()
        };
        match flag.as_str() {
            "device" => gpu = choice(&flag, &parser.value()?.string()?, [("cpu", false), ("gpu", true)])?,
            "precision" => {
                let precision = choice(&flag, &parser.value()?.string()?, [("f32", PrecisionSpec::F32), ("mixed", PrecisionSpec::Mixed)])?;
                changes.push(Box::new(move |spec| spec.precision = precision));
            }
            "region" => {
                let region = choice(&flag, &parser.value()?.string()?, [("on", true), ("off", false)])?;
                changes.push(Box::new(move |spec| spec.loss.region = region));
            }
            "checkpointing" => {
                let checkpointing = choice(&flag, &parser.value()?.string()?, [("on", true), ("off", false)])?;
                changes.push(Box::new(move |spec| spec.checkpointing = checkpointing));
            }
            "threads" => threads = list(&mut parser, 0)?,
            "batch-size" => batches = list(&mut parser, 1)?,
            "arch" => arch = parser.value()?.string()?,
            "window" => window = number(&mut parser, 1)?,
            "prototypes" => {
                let k = number(&mut parser, 1)?;
                changes.push(Box::new(move |spec| spec.head.out_dim = k));
            }
            "global-size" => {
                let side = number(&mut parser, 1)?;
                changes.push(Box::new(move |spec| spec.crops.global_size = side));
            }
            "local-size" => {
                let side = number(&mut parser, 1)?;
                changes.push(Box::new(move |spec| spec.crops.local_size = side));
            }
            "local-count" => {
                let count = number(&mut parser, 0)?;
                changes.push(Box::new(move |spec| spec.crops.local_count = count));
            }
            "runs" => runs = number(&mut parser, 1)?,
            "warm-up" => warm_up = number(&mut parser, 0)?,
            "only" => only = Some(parser.value()?.string()?),
            "json" => json = true,
            "paced" => paced = true,
            _ => return Err(format!("unknown option --{flag}; --help lists them").into()),
        }
    }
    let subjects = subjects.ok_or("say what to measure: ops, step, inference, loss, attention or all")?;
    let known = || models::names().collect::<Vec<_>>().join(", ");
    let mut spec = models::training(&arch, window).ok_or_else(|| format!("--arch must be one of {}, got {arch}", known()))?;
    changes.into_iter().for_each(|change| change(&mut spec));
    let options = Options { subjects, gpu, threads, batches, spec, runs, warm_up, only, json, paced };
    if options.only.is_some() && options.subjects != [Subject::Operators] {
        return Err("--only picks operators, so it needs ops".into());
    }
    let is_single = |options: &Options| match options.subjects[..] {
        [subject @ Subject::Case(_)] => options.batches(subject).len() == 1 && options.threads.len() == 1,
        _ => false,
    };
    if options.paced && !is_single(&options) {
        return Err("--paced needs one case, one --batch-size and one --threads".into());
    }
    Ok(Parsed::Run(Box::new(options)))
}

fn subjects_of(word: &str) -> Result<Vec<Subject>, lexopt::Error> {
    let subjects = Subject::named(word);
    match subjects.is_empty() {
        true => Err(format!("{word} is not known; measure ops, step, inference, loss, attention or all").into()),
        false => Ok(subjects),
    }
}

fn whole(flag: &str, text: &str, least: usize) -> Result<usize, lexopt::Error> {
    match text.parse() {
        Ok(n) if n >= least => Ok(n),
        _ => Err(format!("--{flag} takes whole numbers from {least}, got {text}").into()),
    }
}

fn choice<T: Copy, const N: usize>(flag: &str, text: &str, choices: [(&str, T); N]) -> Result<T, lexopt::Error> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| format!("--{flag} must be {}, got {text}", choices.map(|(name, _)| name).join(" or ")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Parsed::Run(options) => Ok(*options),
            Parsed::Help => Err("help".into()),
        }
    }

    #[test]
    fn every_option_acts() {
        let line = "loss -d gpu --precision mixed --threads 1,2 --batch-size 3 --arch swin_base --window 14 --prototypes 512 --global-size 112 \
                    --local-size 48 --local-count 2 --region off --checkpointing on --runs 7 --warm-up 0 --json";
        let o = options(line).unwrap();
        assert_eq!(o.subjects, [Subject::Case(BenchCase::Loss)]);
        assert_eq!((o.gpu, o.json, o.paced, o.runs, o.warm_up), (true, true, false, 7, 0));
        assert_eq!((o.threads.clone(), o.batches(o.subjects[0])), (vec![1, 2], vec![3]));
        let swin = models::swin(&o.spec.backbone).unwrap();
        assert_eq!((swin.dim, swin.window, o.spec.head.out_dim), (128, 14, 512));
        let crops = &o.spec.crops;
        assert_eq!((crops.global_size, crops.local_size, crops.local_count), (112, 48, 2));
        assert_eq!((o.spec.precision, o.spec.loss.region, o.spec.checkpointing), (PrecisionSpec::Mixed, false, true));
        assert_eq!(options("ops --only linear").unwrap().only.as_deref(), Some("linear"));
        assert!(options("step --batch-size 2 --paced").unwrap().paced);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, sentence) in [
            ("", "say what to measure: ops, step, inference, loss, attention or all"),
            ("lost", "lost is not known; measure ops, step, inference, loss, attention or all"),
            ("ops step", "one subject at a time, got another one: step"),
            ("ops --fast", "unknown option --fast; --help lists them"),
            ("ops --device tpu", "--device must be cpu or gpu, got tpu"),
            ("ops --precision f16", "--precision must be f32 or mixed, got f16"),
            ("step --batch-size 2,0", "--batch-size takes whole numbers from 1, got 0"),
            ("step --runs many", "--runs takes whole numbers from 1, got many"),
            ("step --arch vit", "--arch must be one of swin_tiny, swin_small, swin_base, swin_large, got vit"),
            ("step --only linear", "--only picks operators, so it needs ops"),
            ("inference --paced", "--paced needs one case, one --batch-size and one --threads"),
            ("ops --paced", "--paced needs one case, one --batch-size and one --threads"),
        ] {
            assert_eq!(options(line).unwrap_err(), sentence, "{line}");
        }
    }
}
