//! Runs a pickle's opcodes over data only: no name is imported, nothing is called, memory is bounded
//! by the bytes that are really there.

use super::class::Class;
use super::opcode::Opcode;
use super::storage::{declared_storage, declared_view};
use super::value::{Id, MAX_NAME, Node, Refusal, Values};
use std::collections::HashMap;
use std::io::Read;

/// Longest pickle that is read: that of a large model's checkpoint has less than one MiB.
pub const MAX_BYTES: u64 = 64 << 20;

/// Most values; each takes about 50 bytes here.
const MAX_NODES: usize = 2_000_000;

/// Reads one pickle from `input`, which is left behind its last byte.
///
/// # Errors
/// Saying what in it is refused, and at which byte.
pub fn unpickle(input: &mut dyn Read) -> Result<(Values, u64), Refusal> {
    let mut machine = Machine {
        input,
        position: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    match machine.run() {
        Ok(root) => {
            let nodes = machine.nodes;
            Ok((Values { nodes, root }, machine.position))
        }
        Err(reason) => Err(format!("{reason} (byte {} of it)", machine.position)),
    }
}

struct Machine<'a> {
    input: &'a mut dyn Read,
    position: u64,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        self.advance(N as u64)?;
        let mut bytes = [0; N];
        self.input
            .read_exact(&mut bytes)
            .map_err(|e| format!("its pickle breaks off: {e}"))?;
        Ok(bytes)
    }

    fn advance(&mut self, len: u64) -> Result<(), Refusal> {
        self.position = self.position.saturating_add(len);
        match self.position > MAX_BYTES {
            true => Err(format!("its pickle is longer than {} MiB", MAX_BYTES >> 20)),
            false => Ok(()),
        }
    }

    /// `len` bytes, as many as there are: a declared length allocates nothing.
    fn blob(&mut self, len: u64) -> Result<Vec<u8>, Refusal> {
        self.advance(len)?;
        let mut bytes = Vec::new();
        let read = Read::take(&mut *self.input, len)
            .read_to_end(&mut bytes)
            .map_err(|e| format!("its pickle cannot be read: {e}"))?;
        match read as u64 == len {
            true => Ok(bytes),
            false => Err("its pickle breaks off".into()),
        }
    }

    fn line(&mut self) -> Result<String, Refusal> {
        let mut line = Vec::new();
        loop {
            match self.bytes::<1>()? {
                [b'\n'] => break,
                [byte] => line.push(byte),
            }
            if line.len() > MAX_NAME {
                return Err(format!(
                    "a name in its pickle is longer than {MAX_NAME} bytes"
                ));
            }
        }
        String::from_utf8(line).map_err(|_| "a name in its pickle is not UTF-8".into())
    }

    fn text(&mut self, len: u64) -> Result<(), Refusal> {
        let text = String::from_utf8(self.blob(len)?)
            .map_err(|_| "a text in its pickle is not UTF-8".to_owned())?;
        self.push(Node::Text(text))
    }

    /// A Python 2 string: a text where it is one.
    fn string(&mut self, len: u64) -> Result<(), Refusal> {
        match String::from_utf8(self.blob(len)?) {
            Ok(text) => self.push(Node::Text(text)),
            Err(_) => self.push(Node::Bytes),
        }
    }

    fn long(&mut self, len: u64) -> Result<(), Refusal> {
        let bytes = self.blob(len)?;
        if bytes.len() > 8 {
            return self.push(Node::Opaque);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        extended[..bytes.len()].copy_from_slice(&bytes);
        self.push(Node::Int(i64::from_le_bytes(extended)))
    }

    fn node(&mut self, node: Node) -> Result<Id, Refusal> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("its pickle holds more than {MAX_NODES} values"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as Id - 1)
    }

    fn push(&mut self, node: Node) -> Result<(), Refusal> {
        let id = self.node(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, Refusal> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(underflow),
            false => Err(underflow()),
        }
    }

    fn top(&self) -> Result<Id, Refusal> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.last().copied().ok_or_else(underflow),
            false => Err(underflow()),
        }
    }

    /// Everything above the last mark.
    fn above_mark(&mut self) -> Result<Vec<Id>, Refusal> {
        let mark = self
            .marks
            .pop()
            .ok_or("its pickle closes what it did not open")?;
        Ok(self.stack.split_off(mark))
    }

    fn at(&mut self, id: Id) -> Result<&mut Node, Refusal> {
        self.nodes.get_mut(id as usize).ok_or_else(underflow)
    }

    fn tuple(&mut self, len: usize) -> Result<(), Refusal> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn get(&mut self, key: u32) -> Result<(), Refusal> {
        let id = self
            .memo
            .get(&key)
            .copied()
            .ok_or("its pickle refers to a value that it did not keep")?;
        self.stack.push(id);
        match self.stack.len() > MAX_NODES {
            true => Err(format!("its pickle stacks more than {MAX_NODES} values")),
            false => Ok(()),
        }
    }

    fn put(&mut self, key: u32) -> Result<(), Refusal> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn pairs(&mut self, items: Vec<Id>) -> Result<Vec<(Id, Id)>, Refusal> {
        let (pairs, rest) = items.as_chunks::<2>();
        match rest {
            [] => Ok(pairs.iter().map(|[k, v]| (*k, *v)).collect()),
            [..] => Err("its pickle sets a key without a value".into()),
        }
    }

    /// Adds to a dictionary; anything else takes no items (CVE-2026-24747).
    fn set_items(&mut self, target: Id, pairs: Vec<(Id, Id)>) -> Result<(), Refusal> {
        match self.at(target)? {
            Node::Dict(entries) => {
                entries.extend(pairs);
                Ok(())
            }
            _ => Err("its pickle sets items of something that is no dictionary".into()),
        }
    }

    fn append(&mut self, target: Id, items: Vec<Id>) -> Result<(), Refusal> {
        match self.at(target)? {
            Node::List(list) => {
                list.extend(items);
                Ok(())
            }
            Node::Opaque => Ok(()),
            _ => Err("its pickle appends to something that is no list".into()),
        }
    }

    fn class(&mut self, module: &str, name: &str) -> Result<(), Refusal> {
        let class = Class::find(module, name).ok_or_else(|| {
            format!(
                "its pickle names {module:?}.{name:?}, which no checkpoint needs: nothing was run, and \
                 the file is not to be trusted"
            )
        })?;
        self.push(Node::Class(class))
    }

    /// What a call of `callable` with these arguments would give, as data.
    fn reduce(&mut self, callable: Id, arguments: Id) -> Result<(), Refusal> {
        let class = match self.at(callable)? {
            Node::Class(class) => *class,
            _ => return Err("its pickle calls something that is no known class".into()),
        };
        let arguments = match self.at(arguments)? {
            // No call needs more; a long tuple that is copied often would cost time without end.
            Node::Tuple(items) => items.iter().take(4).copied().collect::<Vec<_>>(),
            _ => return Err("its pickle calls with something that is no tuple".into()),
        };
        match class {
            Class::Dict => self.push(Node::Dict(Vec::new())),
            Class::Namespace => self.push(Node::Namespace(None)),
            Class::Tensor => {
                let view = declared_view(&self.nodes, &arguments)?;
                self.push(Node::Tensor(view))
            }
            Class::Parameter => match arguments.first() {
                Some(&tensor) => {
                    self.stack.push(tensor);
                    Ok(())
                }
                None => Err("its pickle has a parameter without a tensor".into()),
            },
            Class::Size => match arguments.first() {
                Some(&dims) => {
                    self.stack.push(dims);
                    Ok(())
                }
                None => self.push(Node::Tuple(Vec::new())),
            },
            Class::Opaque => self.push(Node::Opaque),
            Class::Storage(_) => Err("its pickle makes a storage out of nothing".into()),
        }
    }

    fn build(&mut self) -> Result<(), Refusal> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.at(target)? {
            Node::Namespace(fields) => {
                *fields = Some(state);
                Ok(())
            }
            // An ordered dictionary's own attributes, such as a state dict's version.
            Node::Dict(_) | Node::Opaque => Ok(()),
            _ => Err("its pickle sets the state of something that has none".into()),
        }
    }

    fn run(&mut self) -> Result<Id, Refusal> {
        loop {
            let [byte] = self.bytes::<1>()?;
            let opcode = Opcode::from_byte(byte)
                .ok_or_else(|| format!("its pickle has an unknown opcode {byte:#04x}"))?;
            if opcode == Opcode::Stop {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: Opcode) -> Result<(), Refusal> {
        match opcode {
            Opcode::Stop => Ok(()),
            Opcode::Proto => match self.bytes::<1>()? {
                [version] if version <= 5 => Ok(()),
                [version] => Err(format!(
                    "its pickle has protocol {version}; 5 is the newest"
                )),
            },
            Opcode::Frame => self.bytes::<8>().map(|_| ()),
            Opcode::Mark => {
                self.marks.push(self.stack.len());
                match self.marks.len() > MAX_NODES {
                    true => Err(format!("its pickle opens more than {MAX_NODES} brackets")),
                    false => Ok(()),
                }
            }
            Opcode::Pop => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => {
                    self.marks.pop();
                    Ok(())
                }
                Some(_) | None => self.pop().map(|_| ()),
            },
            Opcode::PopMark => self.above_mark().map(|_| ()),
            Opcode::Dup => {
                let top = self.top()?;
                self.stack.push(top);
                match self.stack.len() > MAX_NODES {
                    true => Err(format!("its pickle stacks more than {MAX_NODES} values")),
                    false => Ok(()),
                }
            }
            Opcode::None => self.push(Node::None),
            Opcode::NewTrue => self.push(Node::Bool(true)),
            Opcode::NewFalse => self.push(Node::Bool(false)),
            Opcode::BinInt => {
                let bytes = self.bytes()?;
                self.push(Node::Int(i32::from_le_bytes(bytes).into()))
            }
            Opcode::BinInt1 => {
                let [byte] = self.bytes()?;
                self.push(Node::Int(byte.into()))
            }
            Opcode::BinInt2 => {
                let bytes = self.bytes()?;
                self.push(Node::Int(u16::from_le_bytes(bytes).into()))
            }
            Opcode::Long1 => {
                let [len] = self.bytes()?;
                self.long(len.into())
            }
            Opcode::Long4 => {
                let len = u32::from_le_bytes(self.bytes()?);
                self.long(len.into())
            }
            Opcode::BinFloat => {
                let bytes = self.bytes()?;
                self.push(Node::Float(f64::from_be_bytes(bytes)))
            }
            Opcode::ShortBinString => {
                let [len] = self.bytes()?;
                self.string(len.into())
            }
            Opcode::BinString => {
                let len = u32::from_le_bytes(self.bytes()?);
                self.string(len.into())
            }
            Opcode::ShortBinUnicode => {
                let [len] = self.bytes()?;
                self.text(len.into())
            }
            Opcode::BinUnicode => {
                let len = u32::from_le_bytes(self.bytes()?);
                self.text(len.into())
            }
            Opcode::BinUnicode8 => {
                let len = u64::from_le_bytes(self.bytes()?);
                self.text(len)
            }
            Opcode::ShortBinBytes => {
                let [len] = self.bytes()?;
                self.blob(len.into())?;
                self.push(Node::Bytes)
            }
            Opcode::BinBytes => {
                let len = u32::from_le_bytes(self.bytes()?);
                self.blob(len.into())?;
                self.push(Node::Bytes)
            }
            Opcode::BinBytes8 | Opcode::ByteArray8 => {
                let len = u64::from_le_bytes(self.bytes()?);
                self.blob(len)?;
                self.push(Node::Bytes)
            }
            Opcode::EmptyTuple => self.push(Node::Tuple(Vec::new())),
            Opcode::Tuple1 => self.tuple(1),
            Opcode::Tuple2 => self.tuple(2),
            Opcode::Tuple3 => self.tuple(3),
            Opcode::Tuple | Opcode::FrozenSet => {
                let items = self.above_mark()?;
                self.push(Node::Tuple(items))
            }
            Opcode::EmptyList | Opcode::EmptySet => self.push(Node::List(Vec::new())),
            Opcode::List => {
                let items = self.above_mark()?;
                self.push(Node::List(items))
            }
            Opcode::Append => {
                let item = self.pop()?;
                let target = self.top()?;
                self.append(target, vec![item])
            }
            Opcode::Appends | Opcode::AddItems => {
                let items = self.above_mark()?;
                let target = self.top()?;
                self.append(target, items)
            }
            Opcode::EmptyDict => self.push(Node::Dict(Vec::new())),
            Opcode::Dict => {
                let items = self.above_mark()?;
                let pairs = self.pairs(items)?;
                self.push(Node::Dict(pairs))
            }
            Opcode::SetItem => {
                let value = self.pop()?;
                let key = self.pop()?;
                let target = self.top()?;
                self.set_items(target, vec![(key, value)])
            }
            Opcode::SetItems => {
                let items = self.above_mark()?;
                let pairs = self.pairs(items)?;
                let target = self.top()?;
                self.set_items(target, pairs)
            }
            Opcode::BinGet => {
                let [key] = self.bytes()?;
                self.get(key.into())
            }
            Opcode::LongBinGet => {
                let key = u32::from_le_bytes(self.bytes()?);
                self.get(key)
            }
            Opcode::BinPut => {
                let [key] = self.bytes()?;
                self.put(key.into())
            }
            Opcode::LongBinPut => {
                let key = u32::from_le_bytes(self.bytes()?);
                self.put(key)
            }
            Opcode::Memoize => {
                let key = self.memo.len() as u32;
                self.put(key)
            }
            Opcode::Global => {
                let (module, name) = (self.line()?, self.line()?);
                self.class(&module, &name)
            }
            Opcode::StackGlobal => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id: Id| match self.nodes.get(id as usize) {
                    Some(Node::Text(text)) if text.len() <= MAX_NAME => Ok(text.clone()),
                    Some(_) | None => Err("its pickle names something by no text".to_owned()),
                };
                let (module, name) = (text(module)?, text(name)?);
                self.class(&module, &name)
            }
            Opcode::Reduce | Opcode::NewObj => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.reduce(callable, arguments)
            }
            Opcode::Build => self.build(),
            Opcode::BinPersId => {
                let id = self.pop()?;
                let storage = declared_storage(&self.nodes, id)?;
                self.push(Node::Storage(storage))
            }
            // What torch.save never writes: textual numbers of protocol 0, old-style objects, registered
            // extensions, buffers out of band.
            Opcode::Float
            | Opcode::Int
            | Opcode::Long
            | Opcode::PersId
            | Opcode::String
            | Opcode::Unicode
            | Opcode::Get
            | Opcode::Put
            | Opcode::Inst
            | Opcode::Obj
            | Opcode::NewObjEx
            | Opcode::Ext1
            | Opcode::Ext2
            | Opcode::Ext4
            | Opcode::NextBuffer
            | Opcode::ReadOnlyBuffer => Err(format!(
                "its pickle has the opcode {opcode:?}, which torch.save does not write"
            )),
        }
    }
}

fn underflow() -> Refusal {
    "its pickle takes from an empty stack".into()
}
