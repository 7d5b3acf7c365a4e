//! k-NN votes and accuracies against the original's.

use esvit_engine::knn::{LabeledRows, classify, votes};
use esvit_simd::Pool;
use esvit_testkit::{fixtures, golden_or_skip};

#[test]
fn votes_and_accuracies_are_the_originals() -> Result<(), Box<dyn std::error::Error>> {
    if golden_or_skip("knn").is_none() {
        return Ok(());
    }
    let pool = Pool::new(2)?;
    for fixture in fixtures("knn", "")? {
        let (shape, train) = fixture.floats("train_features")?;
        let (_, test) = fixture.floats("test_features")?;
        let labels = |name: &str| -> Result<Vec<u32>, Box<dyn std::error::Error>> {
            Ok(fixture.integers(name)?.1.iter().map(|&l| l as u32).collect())
        };
        let (train_labels, test_labels) = (labels("train_labels")?, labels("test_labels")?);
        let rows = |features: &[f32], labels: &[u32], classes| LabeledRows::new(features.to_vec(), labels.to_vec(), shape[1], classes);
        let (bank, queries) = (rows(&train, &train_labels, 10)?, rows(&test, &test_labels, 10)?);
        let mut checked = 0;
        for k in [10usize, 20, 100] {
            let (_, want) = fixture.floats(&format!("k{k}.votes"))?;
            let got = votes(&pool, &bank, &queries, k, 0.07)?;
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!(
                    (got - want).abs() <= 2e-5 * want.abs().max(1.0),
                    "{} k {k}: vote {i} is {got}, the original has {want}",
                    fixture.name
                );
            }
        }
        for result in fixture.json["results"].as_array().into_iter().flatten() {
            let get = |key: &str| result[key].as_f64().ok_or_else(|| format!("`{key}` is missing"));
            let (k, classes) = (get("k")? as usize, get("num_classes")? as usize);
            let (bank, queries) = (rows(&train, &train_labels, classes)?, rows(&test, &test_labels, classes)?);
            let accuracy = classify(&pool, &bank, &queries, &[k], 0.07)?[0];
            assert!((accuracy.top1 - get("top1")?).abs() < 1e-9, "{} k {k} classes {classes}: {accuracy:?}", fixture.name);
            assert!((accuracy.top5 - get("top5")?).abs() < 1e-9, "{} k {k} classes {classes}: {accuracy:?}", fixture.name);
            checked += 1;
        }
        assert!(checked > 0, "{}: no results", fixture.name);
    }
    Ok(())
}
