//! Pickle's opcodes, protocols 0 to 5.

macro_rules! opcodes {
    ($($name:ident = $byte:literal),* $(,)?) => {
        /// One opcode.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Opcode { $($name = $byte),* }

        impl Opcode {
            /// The opcode of that byte, if it is one.
            pub fn from_byte(byte: u8) -> Option<Opcode> {
                match byte {
                    $($byte => Some(Opcode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    Mark = b'(', Stop = b'.', Pop = b'0', PopMark = b'1', Dup = b'2',
    Float = b'F', Int = b'I', BinInt = b'J', BinInt1 = b'K', Long = b'L', BinInt2 = b'M',
    None = b'N', PersId = b'P', BinPersId = b'Q', Reduce = b'R', String = b'S',
    BinString = b'T', ShortBinString = b'U', Unicode = b'V', BinUnicode = b'X',
    Append = b'a', Build = b'b', Global = b'c', Dict = b'd', EmptyDict = b'}',
    Appends = b'e', Get = b'g', BinGet = b'h', Inst = b'i', LongBinGet = b'j',
    List = b'l', EmptyList = b']', Obj = b'o', Put = b'p', BinPut = b'q',
    LongBinPut = b'r', SetItem = b's', Tuple = b't', EmptyTuple = b')', SetItems = b'u',
    BinFloat = b'G', Proto = 0x80, NewObj = 0x81, Ext1 = 0x82, Ext2 = 0x83, Ext4 = 0x84,
    Tuple1 = 0x85, Tuple2 = 0x86, Tuple3 = 0x87, NewTrue = 0x88, NewFalse = 0x89,
    Long1 = 0x8a, Long4 = 0x8b, BinBytes = b'B', ShortBinBytes = b'C',
    ShortBinUnicode = 0x8c, BinUnicode8 = 0x8d, BinBytes8 = 0x8e, EmptySet = 0x8f,
    AddItems = 0x90, FrozenSet = 0x91, NewObjEx = 0x92, StackGlobal = 0x93,
    Memoize = 0x94, Frame = 0x95, ByteArray8 = 0x96, NextBuffer = 0x97, ReadOnlyBuffer = 0x98,
}
