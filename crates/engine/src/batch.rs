//! Pixels of one step in native memory: written image by image from any thread, read in place by the step.
//!
//! The memory is pass-major, as the program reads it: for each accumulation pass the images of global crop 0, those of crop 1, then
//! those of each local crop; 8-bit RGB, (height, width, channel). A place is one image of the step with all its crops. It is free, being
//! written, or written; a batch is read only while all of its places are written, and no place changes its state while it is read.

use std::cell::UnsafeCell;
use std::ops::{Deref, Range};
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use esvit_ops::region_match::GLOBAL_CROPS;

use crate::spec::TrainerSpec;
use crate::{Error, Result};

/// Bytes of a pixel.
const CHANNELS: usize = 3;

/// Numbers that decide where each crop of a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchLayout {
    /// Images of a pass.
    pub batch: usize,
    /// Passes of a step.
    pub passes: usize,
    /// Side of the global crops in pixels.
    pub global_size: usize,
    /// Side of the local crops in pixels.
    pub local_size: usize,
    /// Local crops of each image.
    pub local_count: usize,
}

impl BatchLayout {
    /// Layout of the batches that a trainer of this specification reads.
    pub fn of(spec: &TrainerSpec) -> BatchLayout {
        let crops = &spec.crops;
        BatchLayout {
            batch: crops.batch,
            passes: spec.accumulate,
            global_size: crops.global_size,
            local_size: crops.local_size,
            local_count: crops.local_count,
        }
    }

    /// Images of the step.
    pub fn images(&self) -> usize {
        self.batch * self.passes
    }

    /// Crops of each image.
    pub fn crops(&self) -> usize {
        GLOBAL_CROPS + self.local_count
    }

    /// Side of a crop in pixels.
    pub fn side(&self, crop: usize) -> usize {
        if crop < GLOBAL_CROPS { self.global_size } else { self.local_size }
    }

    /// Bytes of all global crops of a pass; the local ones lie behind them.
    pub fn global_bytes(&self) -> usize {
        GLOBAL_CROPS * self.batch * CHANNELS * self.global_size * self.global_size
    }

    /// Bytes of a pass.
    pub fn pass_bytes(&self) -> usize {
        self.global_bytes() + self.local_count * self.batch * CHANNELS * self.local_size * self.local_size
    }

    /// Bytes of the batch; none when their number is beyond what memory can hold.
    fn bytes(&self) -> Option<usize> {
        let area = |side: usize| side.checked_mul(side)?.checked_mul(CHANNELS);
        let global = area(self.global_size)?.checked_mul(GLOBAL_CROPS)?;
        let local = area(self.local_size)?.checked_mul(self.local_count)?;
        let bytes = global.checked_add(local)?.checked_mul(self.batch)?.checked_mul(self.passes)?;
        (bytes <= isize::MAX as usize).then_some(bytes)
    }

    /// Place of a crop of an image of the step. Ranges of different crops or images never overlap.
    fn range(&self, image: usize, crop: usize) -> Range<usize> {
        let (pass, image) = (image / self.batch, image % self.batch);
        let bytes = CHANNELS * self.side(crop) * self.side(crop);
        let first = match crop.checked_sub(GLOBAL_CROPS) {
            None => crop * self.batch * bytes,
            Some(local) => self.global_bytes() + local * self.batch * bytes,
        };
        let start = pass * self.pass_bytes() + first + image * bytes;
        start..start + bytes
    }
}

/// State of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    BeingWritten,
    Written,
}

/// States of all places, and how many readers there are.
#[derive(Debug)]
struct PlaceStates {
    places: Box<[Place]>,
    readers: usize,
}

/// Pixels of one step. Writers and readers share it; each claims what it touches, and holds the claim wherever it goes.
#[derive(Debug)]
pub struct Batch {
    layout: BatchLayout,
    pixels: Box<[UnsafeCell<u8>]>,
    places: Mutex<PlaceStates>,
}

// SAFETY: a byte of `pixels` is reached in two ways only. A `PlaceWriter` has its image's ranges alone: it exists from the moment when
// its place went from `Free` to `BeingWritten`, under the lock, until the moment when the place leaves that state, and ranges of
// different images do not overlap. A `BatchReader` reads all bytes: it exists only while `readers` is above 0, it is made only when all
// places are `Written`, and a place leaves `Written` only in `clear`, which refuses while there are readers. So no byte is written
// while another thread reads or writes it; the lock orders a write before the reads that follow.
unsafe impl Sync for Batch {}

impl Batch {
    /// Makes a batch whose places are all free.
    ///
    /// # Errors
    /// When there is no image, a crop has no pixels, or the sizes are beyond all memory.
    pub fn new(layout: BatchLayout) -> Result<Arc<Batch>> {
        let local_side = if layout.local_count == 0 { 1 } else { layout.local_size };
        if [layout.batch, layout.passes, layout.global_size, local_side].contains(&0) {
            return Err(Error::Spec(format!("a batch must have images and pixels, got {layout:?}")));
        }
        let bytes = layout.bytes().ok_or_else(|| Error::Spec(format!("a batch of {layout:?} is too large")))?;
        let pixels = Box::into_raw(vec![0u8; bytes].into_boxed_slice());
        // SAFETY: the pointer comes from a box of the same layout: `UnsafeCell<u8>` has the representation of `u8`.
        let pixels = unsafe { Box::from_raw(pixels as *mut [UnsafeCell<u8>]) };
        let places = vec![Place::Free; layout.images()].into_boxed_slice();
        Ok(Arc::new(Batch { layout, pixels, places: Mutex::new(PlaceStates { places, readers: 0 }) }))
    }

    /// Makes a full batch from crops that lie crop-major over the whole step: `2·B` global images, all of crop 0 first, then
    /// `local_count·B` local ones.
    ///
    /// # Errors
    /// As [`Batch::new`], and when there are not as many pixels.
    pub fn from_crops(layout: BatchLayout, global: &[u8], local: &[u8]) -> Result<Arc<Batch>> {
        let batch = Batch::new(layout)?;
        let passes = layout.passes;
        let check = |what, want, got| if want == got { Ok(()) } else { Err(Error::Input { what, want, got }) };
        check("the global crops", passes * layout.global_bytes(), global.len())?;
        check("the local crops", passes * (layout.pass_bytes() - layout.global_bytes()), local.len())?;
        for image in 0..layout.images() {
            let mut writer = batch.write(image)?;
            for (crop, out) in writer.crops().into_iter().enumerate() {
                let (from, crop) = if crop < GLOBAL_CROPS { (global, crop) } else { (local, crop - GLOBAL_CROPS) };
                let start = (crop * layout.images() + image) * out.len();
                out.copy_from_slice(&from[start..start + out.len()]);
            }
            writer.finish();
        }
        Ok(batch)
    }

    /// Numbers the batch was made from.
    pub fn layout(&self) -> &BatchLayout {
        &self.layout
    }

    /// Claims the place of an image, for one writer.
    ///
    /// # Errors
    /// When there is no such place, or it is not free.
    pub fn write(self: &Arc<Self>, image: usize) -> Result<PlaceWriter> {
        let mut lock = self.lock();
        let images = lock.places.len();
        match lock.places.get_mut(image) {
            Some(place @ Place::Free) => *place = Place::BeingWritten,
            Some(Place::BeingWritten) => return Err(Error::Batch(format!("image {image} of the batch is being written already"))),
            Some(Place::Written) => return Err(Error::Batch(format!("image {image} of the batch is written already"))),
            None => return Err(Error::Batch(format!("a batch of {images} images has no image {image}"))),
        }
        Ok(PlaceWriter { batch: Arc::clone(self), image, state: Place::Free })
    }

    /// Reads the pixels, while no place can change.
    ///
    /// # Errors
    /// When a place is not written.
    pub fn read(self: &Arc<Self>) -> Result<BatchReader> {
        let mut lock = self.lock();
        match lock.places.iter().position(|&place| place != Place::Written) {
            Some(image) => Err(Error::Batch(format!("image {image} of the batch is not written yet"))),
            None => {
                lock.readers += 1;
                Ok(BatchReader { batch: Arc::clone(self) })
            }
        }
    }

    /// Makes all places free again.
    ///
    /// # Errors
    /// When the batch is being read, or an image of it written; then nothing is changed.
    pub fn clear(&self) -> Result<()> {
        let mut lock = self.lock();
        if lock.readers > 0 {
            return Err(Error::Batch("a batch that is being read cannot be cleared".into()));
        }
        if let Some(image) = lock.places.iter().position(|&place| place == Place::BeingWritten) {
            return Err(Error::Batch(format!("image {image} of the batch is being written, so it cannot be cleared")));
        }
        lock.places.fill(Place::Free);
        Ok(())
    }

    /// Locks the states. A panic elsewhere leaves them whole: nothing fails while the lock is held.
    fn lock(&self) -> MutexGuard<'_, PlaceStates> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One image's place in a batch, for writing. Dropped before [`PlaceWriter::finish`], it leaves the place free.
#[derive(Debug)]
pub struct PlaceWriter {
    batch: Arc<Batch>,
    image: usize,
    /// State the place goes to.
    state: Place,
}

impl PlaceWriter {
    /// Memory of the image's crops, in their order. It holds what an earlier image left there.
    pub fn crops(&mut self) -> Vec<&mut [u8]> {
        let layout = &self.batch.layout;
        let crop = |crop| {
            let cells = &self.batch.pixels[layout.range(self.image, crop)];
            // SAFETY: the range belongs to this image and crop alone, and this writer, borrowed mutably, is the only one that reaches the
            // image's bytes (see `impl Sync for Batch`). Cells may be written through a shared reference to them.
            unsafe { slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
        };
        (0..layout.crops()).map(crop).collect()
    }

    /// Declares the place written.
    pub fn finish(mut self) {
        self.state = Place::Written;
    }
}

impl Drop for PlaceWriter {
    fn drop(&mut self) {
        self.batch.lock().places[self.image] = self.state;
    }
}

/// All pixels of a batch, pass-major, for reading.
#[derive(Debug)]
pub struct BatchReader {
    batch: Arc<Batch>,
}

impl BatchReader {
    /// Numbers the batch was made from.
    pub fn layout(&self) -> &BatchLayout {
        &self.batch.layout
    }

    /// Pixels of a pass: its global crops, then the local ones.
    pub fn pass(&self, pass: usize) -> &[u8] {
        let bytes = self.batch.layout.pass_bytes();
        &self[pass * bytes..(pass + 1) * bytes]
    }
}

impl Deref for BatchReader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let cells = &self.batch.pixels;
        // SAFETY: nobody writes while this reader exists (see `impl Sync for Batch`).
        unsafe { slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }
}

impl Drop for BatchReader {
    fn drop(&mut self) {
        self.batch.lock().readers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: BatchLayout = BatchLayout { batch: 2, passes: 3, global_size: 4, local_size: 2, local_count: 3 };

    #[test]
    fn crops_tile_the_memory_pass_by_pass() {
        let mut next = 0;
        for pass in 0..LAYOUT.passes {
            for crop in 0..LAYOUT.crops() {
                for image in 0..LAYOUT.batch {
                    let range = LAYOUT.range(pass * LAYOUT.batch + image, crop);
                    assert_eq!(range.start, next, "pass {pass}, crop {crop}, image {image}");
                    next = range.end;
                }
            }
            assert_eq!(next, (pass + 1) * LAYOUT.pass_bytes());
        }
        assert_eq!(Some(next), LAYOUT.bytes());
    }

    #[test]
    fn a_batch_is_read_when_every_image_is_written() {
        let batch = Batch::new(LAYOUT).unwrap();
        for image in 0..LAYOUT.images() {
            assert!(batch.read().unwrap_err().to_string().contains(&format!("image {image} of the batch is not written yet")));
            let mut writer = batch.write(image).unwrap();
            assert!(batch.write(image).unwrap_err().to_string().contains("being written already"));
            assert!(batch.clear().is_err());
            writer.crops().into_iter().for_each(|crop| crop.fill(image as u8));
            writer.finish();
            assert!(batch.write(image).unwrap_err().to_string().contains("is written already"));
        }
        assert!(batch.write(LAYOUT.images()).is_err());
        let reader = batch.read().unwrap();
        for pass in 0..LAYOUT.passes {
            let first = (pass * LAYOUT.batch) as u8;
            assert_eq!(reader.pass(pass)[..2 * 48], [[first; 48], [first + 1; 48]].concat());
        }
        assert!(batch.clear().is_err());
        drop(reader);
        batch.clear().unwrap();
        assert!(batch.read().is_err());
    }

    #[test]
    fn an_abandoned_place_is_free_again() {
        let batch = Batch::new(LAYOUT).unwrap();
        drop(batch.write(1).unwrap());
        batch.write(1).unwrap().finish();
        let panicked = std::thread::scope(|scope| {
            let panics = || {
                let _writer = batch.write(2).unwrap();
                panic!("the renderer failed");
            };
            scope.spawn(panics).join()
        });
        assert!(panicked.is_err());
        batch.write(2).unwrap().finish();
    }

    #[test]
    fn threads_write_their_images_at_once() {
        let batch = Batch::new(LAYOUT).unwrap();
        std::thread::scope(|scope| {
            for image in 0..LAYOUT.images() {
                let batch = &batch;
                scope.spawn(move || {
                    let mut writer = batch.write(image).unwrap();
                    for (crop, out) in writer.crops().into_iter().enumerate() {
                        out.fill((10 * image + crop) as u8);
                    }
                    writer.finish();
                });
            }
        });
        let reader = batch.read().unwrap();
        for image in 0..LAYOUT.images() {
            for crop in 0..LAYOUT.crops() {
                assert!(reader[LAYOUT.range(image, crop)].iter().all(|&v| v == (10 * image + crop) as u8));
            }
        }
    }

    #[test]
    fn crop_major_pixels_find_their_places() {
        let global: Vec<u8> = (0..2 * 6).flat_map(|i| [i; 48]).collect();
        let local: Vec<u8> = (0..3 * 6).flat_map(|i| [100 + i; 12]).collect();
        let batch = Batch::from_crops(LAYOUT, &global, &local).unwrap();
        let reader = batch.read().unwrap();
        for image in 0..6 {
            for crop in 0..5 {
                let want = if crop < 2 { crop * 6 + image } else { 100 + (crop - 2) * 6 + image } as u8;
                assert!(reader[LAYOUT.range(image, crop)].iter().all(|&v| v == want), "image {image}, crop {crop}");
            }
        }
        assert!(Batch::from_crops(LAYOUT, &global[1..], &local).is_err());
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for layout in [
            BatchLayout { batch: 0, ..LAYOUT },
            BatchLayout { passes: 0, ..LAYOUT },
            BatchLayout { global_size: 0, ..LAYOUT },
            BatchLayout { local_size: 0, ..LAYOUT },
            BatchLayout { global_size: usize::MAX / 2, ..LAYOUT },
            BatchLayout { batch: usize::MAX / 100, ..LAYOUT },
        ] {
            assert!(Batch::new(layout).is_err(), "{layout:?}");
        }
        let no_locals = Batch::new(BatchLayout { local_size: 0, local_count: 0, ..LAYOUT }).unwrap();
        assert_eq!(no_locals.layout().crops(), 2);
    }
}
