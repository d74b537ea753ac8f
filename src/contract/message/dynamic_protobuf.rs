//! Protobuf message types that are known only at run time. These types come from a schema registry, a file, or a
//! table's contract.
//!
//! ```text
//!   text of a .proto file and of its imports ─► ProtoFile ─ path ─► MessageType ─┬─► JSON text
//!                                                                                └─► is it compatible with a contract?
//!                                                                                    (compatibility.rs)
//! ```
//!
//! Messages are converted to JSON text with protobuf's JSON mapping. Fields keep their names from the `.proto` file.
//! 64-bit integers are written as numbers, and fields without presence are always included.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions};
use prost_types::FileDescriptorProto;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::contract::decode::reject_reason::Reason;
use crate::contract::schema::proto;
use crate::error::{Error, Result};

/// The file name under which a schema from a registry is compiled, because registries do not store one.
const FILE: &str = "(schema).proto";
/// The maximum nesting depth of braces in a schema. The compiler is recursive, so deeper nesting could overflow the
/// stack.
const DEPTH_MAX: usize = 200;
/// The files that Confluent's client libraries provide. Schemas import them, but registries do not store them.
const KNOWN: [(&str, &str); 2] = [
    (
        "confluent/meta.proto",
        "syntax = \"proto3\"; package confluent; import \"google/protobuf/descriptor.proto\";\n\
         message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }\n\
         extend google.protobuf.FileOptions { Meta file_meta = 1088; }\n\
         extend google.protobuf.MessageOptions { Meta message_meta = 1088; }\n\
         extend google.protobuf.FieldOptions { Meta field_meta = 1088; }\n\
         extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }\n\
         extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }",
    ),
    (
        "confluent/type/decimal.proto",
        "syntax = \"proto3\"; package confluent.type;\n\
         message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }",
    ),
];

const JSON: SerializeOptions =
    SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(false);

/// A compiled `.proto` file.
#[derive(Debug)]
pub struct ProtoFile(FileDescriptor);

/// A protobuf message type.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageType(pub(in crate::contract) MessageDescriptor);

/// The text of each file that can be imported, by import name.
#[derive(Debug)]
struct ProtoSources(HashMap<String, String>);

/// A writer that appends to a buffer and fails when the buffer would exceed a maximum length.
struct BoundedText<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
}

impl ProtoFile {
    /// Compiles a schema. `imports` contains the name and text of each file that the schema imports, directly or
    /// indirectly. The files of Google's well-known types are built in.
    pub fn compile(text: &str, imports: Vec<(String, String)>) -> Result<Self> {
        if is_deep(text) || imports.iter().any(|(_, text)| is_deep(text)) {
            return Err(Error::invalid(format!(
                "braces in the protobuf schema are nested more than {DEPTH_MAX} levels deep: use fewer nested types or options"
            )));
        }
        let known = KNOWN.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let mut sources: HashMap<String, String> = known.into_iter().chain(imports).collect();
        sources.insert(FILE.to_owned(), text.to_owned());
        let mut resolver = ChainFileResolver::new();
        resolver.add(ProtoSources(sources));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        let compiled = compiler.include_imports(true).open_file(FILE);
        compiled.map_err(|error| Error::invalid(format!("the protobuf schema does not compile: {error}")))?;
        let pool: DescriptorPool = compiler.descriptor_pool();
        pool.get_file_by_name(FILE)
            .map(Self)
            .ok_or_else(|| Error::internal("the compiled file is missing from its pool"))
    }

    /// Returns the message types to which `path`, a list of indexes, may refer. The first index selects one of the
    /// file's message types, and each further index selects one of the types that are nested in it.
    ///
    /// A path can be ambiguous, because the compiler adds a nested message type for the entries of each map field.
    /// Java's serializer does not count these types, but other serializers do. If the two ways of counting lead to
    /// different types, both are returned, and the one for Java comes first.
    pub fn messages(&self, path: &[usize]) -> Vec<MessageType> {
        let mut candidates: Vec<_> =
            [false, true].into_iter().filter_map(|with_maps| self.at(path, with_maps)).collect();
        candidates.dedup();
        candidates
    }

    fn at(&self, path: &[usize], with_maps: bool) -> Option<MessageType> {
        let (first, inner) = path.split_first()?;
        let mut message = self.0.messages().nth(*first)?;
        for index in inner {
            let child = message.child_messages().filter(|child| with_maps || !child.is_map_entry()).nth(*index)?;
            message = child;
        }
        (!message.is_map_entry()).then_some(MessageType(message))
    }
}

impl MessageType {
    /// Loads the message type with the full name `name` from `file`. The compiler searches for imported files in the
    /// folder of `file`, and then in each folder above it, up to `base`.
    pub fn open(file: &Path, name: &str, base: &Path) -> Result<Self> {
        proto::compile(Some(name), file, base).map(Self).map_err(Error::invalid)
    }

    /// Returns the full name of the message type.
    pub fn name(&self) -> &str {
        self.0.full_name()
    }

    /// Converts a message to JSON text and appends it to `out`. The text must not be longer than `bytes_max` bytes.
    pub fn write_json(&self, message: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), (Reason, String)> {
        let message = DynamicMessage::decode(self.0.clone(), message)
            .map_err(|error| (Reason::Malformed, format!("the bytes are not a `{}` message: {error}", self.name())))?;
        let end = out.len().saturating_add(bytes_max);
        let mut text = serde_json::Serializer::new(BoundedText { out, end });
        message.serialize_with_options(&mut text, &JSON).map_err(|error| match error.is_io() {
            true => {
                (Reason::TooLarge, format!("converted to JSON, the message exceeds the limit of {bytes_max} bytes"))
            }
            false => (Reason::Malformed, format!("message `{}` cannot be written as JSON: {error}", self.name())),
        })
    }
}

/// Returns true if braces in the text are nested deeper than [`DEPTH_MAX`]. Braces in line comments are ignored.
fn is_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        code.bytes().any(|byte| {
            match byte {
                b'{' | b'[' | b'<' => depth += 1,
                b'}' | b']' | b'>' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth > DEPTH_MAX
        })
    })
}

impl FileResolver for ProtoSources {
    fn open_file(&self, name: &str) -> std::result::Result<File, protox::Error> {
        let text = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        // Some clients register a base64-encoded file descriptor instead of a schema text, and some registries return
        // the schema as such a descriptor.
        let compiled = BASE64.decode(text).ok().and_then(|bytes| FileDescriptorProto::decode(&*bytes).ok());
        match compiled {
            Some(mut file) => {
                file.name = Some(name.to_owned());
                Ok(File::from_file_descriptor_proto(file))
            }
            None => File::from_source(name, text),
        }
    }
}

impl io::Write for BoundedText<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > self.end {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
