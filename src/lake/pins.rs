//! Pins. A pin keeps the files of a version in the store until a given time, for example during a backup.
//!
//! A pin is the object `_maintenance/pins/<table>/<name>.json`, with the content `{"version": 7, "until": 1767225600000}`.
//! It covers each file that is live at its version or was removed later. Vacuum reads all pins before it deletes files.
//! Someone who pins a version that is not the newest one must check afterwards that its files still exist.
//!
//! **Invariant:** a pin that cannot be understood covers all files.

use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lake::Table;
use crate::lake::store::client::store_error;

/// The folder of all pins, next to the folders of the tables.
const FOLDER: &str = "_maintenance/pins";

/// A pinned version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The version of the table.
    pub version: u64,
    /// The time at which the pin ends, in milliseconds since 1970.
    pub until: i64,
}

impl Table {
    /// Stores a pin. Replaces an existing pin of the same name. Returns `Invalid` if the name has other characters than
    /// letters, digits, `-` and `_`.
    pub async fn put_pin(&self, name: &str, pin: Pin) -> Result<()> {
        let path = self.pin_path(name)?;
        let bytes = serde_json::to_vec(&pin)
            .map_err(|error| Error::internal("a pin cannot be written as JSON").with_source(error))?;
        self.location().0.objects.put(&path, bytes.into()).await.map_err(|error| store_error(&path, error))?;
        Ok(())
    }

    /// Deletes a pin. Does nothing if there is none of this name. Returns `Invalid` like [`Table::put_pin`].
    pub async fn remove_pin(&self, name: &str) -> Result<()> {
        let path = self.pin_path(name)?;
        match self.location().0.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(&path, error)),
        }
    }

    /// Returns all pins of the table by name, also those that have ended. A pin that cannot be understood is `None`.
    pub async fn pins(&self) -> Result<Vec<(String, Option<Pin>)>> {
        let (folder, objects) = (self.pin_folder(), &self.location().0.objects);
        let found: Vec<_> =
            objects.list(Some(&folder)).try_collect().await.map_err(|error| store_error(&folder, error))?;
        let mut pins = Vec::new();
        for object in found {
            let name = object.location.filename().unwrap_or_default();
            let bytes = match objects.get(&object.location).await {
                Ok(found) => found.bytes().await,
                // The pin has been removed since the listing.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => Err(error),
            };
            let bytes = bytes.map_err(|error| store_error(&object.location, error))?;
            let pin = name.strip_suffix(".json").and_then(|_| serde_json::from_slice(&bytes).ok());
            pins.push((name.strip_suffix(".json").unwrap_or(name).to_owned(), pin));
        }
        Ok(pins)
    }

    fn pin_folder(&self) -> Path {
        let prefix = &self.location().0.prefix;
        let parts = FOLDER.split('/').chain([self.contract.name.as_str()]);
        parts.fold(prefix.clone(), |folder, part| folder.join(part))
    }

    fn pin_path(&self, name: &str) -> Result<Path> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(Error::invalid(format!("invalid name of a pin `{name}`: use letters, digits, `-` and `_`")));
        }
        Ok(self.pin_folder().join(format!("{name}.json")))
    }
}
