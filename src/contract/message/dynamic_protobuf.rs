//! Protobuf messages whose type is known at run time: from a schema registry, a file, or the table's own contract.
//!
//! ```text
//!   text of a .proto, and of its imports ─► ProtoFile ─ path ─► MessageType ─┬─► JSON text
//!                                                                            └─► is it what a contract reads? (agree.rs)
//! ```
//!
//! In: what a registry answers. Out: types, and messages as JSON in protobuf's own form: names as in the `.proto`, 64-bit
//! integers as numbers, fields without presence always there.

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

use crate::contract::decode::reject::Reason;
use crate::contract::schema::proto;
use crate::error::{Error, Result};

/// What a schema of a registry is called when its imports do not tell.
const FILE: &str = "(schema).proto";
/// Braces within braces: the compiler goes down with them, and a stack has its end.
const DEPTH_MAX: usize = 200;
/// Files that Confluent's clients bring along: schemas import them, and registries do not know them.
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

/// A compiled `.proto`.
#[derive(Debug)]
pub struct ProtoFile(FileDescriptor);

/// The type of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageType(pub(in crate::contract) MessageDescriptor);

/// Files in memory, by the names under which they are imported.
#[derive(Debug)]
struct ProtoSources(HashMap<String, String>);

/// Text that may grow up to a length.
struct BoundedText<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
}

impl ProtoFile {
    /// Compiles a schema. `imports` are the files that it imports, and that those import, by name; Google's own are known.
    pub fn compile(text: &str, imports: Vec<(String, String)>) -> Result<Self> {
        if is_deep(text) || imports.iter().any(|(_, text)| is_deep(text)) {
            return Err(Error::invalid(format!("the protobuf schema has more than {DEPTH_MAX} braces in each other")));
        }
        let known = KNOWN.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let mut sources: HashMap<String, String> = known.into_iter().chain(imports).collect();
        sources.insert(FILE.to_owned(), text.to_owned());
        let mut resolver = ChainFileResolver::new();
        resolver.add(ProtoSources(sources));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        let compiled = compiler.include_imports(true).open_file(FILE);
        compiled.map_err(|fault| Error::invalid(format!("the protobuf schema does not compile: {fault}")))?;
        let pool: DescriptorPool = compiler.descriptor_pool();
        pool.get_file_by_name(FILE).map(Self).ok_or_else(|| Error::internal("a file that was compiled is not there"))
    }

    /// The messages that a path of indexes may mean: of the file's messages, then of the messages in that one, and so on.
    /// Two when it matters that a map is a message in its message as well: Java's writers count without those, others with
    /// them. Java's meaning comes first.
    pub fn messages(&self, path: &[usize]) -> Vec<MessageType> {
        let mut meant: Vec<_> = [false, true].into_iter().filter_map(|with_maps| self.at(path, with_maps)).collect();
        meant.dedup();
        meant
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
    /// The message of this full name in a file. Its imports are looked for from `base` on, or beside the file.
    pub fn open(file: &Path, name: &str, base: &Path) -> Result<Self> {
        proto::compile(Some(name), file, base).map(Self).map_err(Error::invalid)
    }

    /// Its full name.
    pub fn name(&self) -> &str {
        self.0.full_name()
    }

    /// Adds a message to `out` as JSON text of at most `bytes_max` bytes.
    pub fn write_json(&self, message: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), (Reason, String)> {
        let message = DynamicMessage::decode(self.0.clone(), message)
            .map_err(|fault| (Reason::Malformed, format!("no message `{}`: {fault}", self.name())))?;
        let end = out.len().saturating_add(bytes_max);
        let mut text = serde_json::Serializer::new(BoundedText { out, end });
        message.serialize_with_options(&mut text, &JSON).map_err(|fault| match fault.is_io() {
            true => {
                (Reason::TooLarge, format!("the message has more than {bytes_max} bytes as JSON, which are allowed"))
            }
            false => (Reason::Malformed, format!("message `{}` has no form in JSON: {fault}", self.name())),
        })
    }
}

/// Whether a text has too many braces in each other, comments at the end of a line left out.
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
        // Some clients register a file as it is compiled, and some registries tell it in the same way.
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
