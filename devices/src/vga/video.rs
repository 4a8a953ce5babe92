//! Where an adapter keeps its picture: memory of its own, or a part of the guest's.

/// Video memory. Guest code may write to it at any time beside the adapter, so that it is copied,
/// never borrowed.
pub trait VideoMemory: Send {
    /// Bytes.
    fn size(&self) -> usize;
    /// Copies out; bytes past the end are ones.
    fn read(&self, at: usize, buf: &mut [u8]);
    /// Copies in; bytes past the end are dropped.
    fn write(&mut self, at: usize, data: &[u8]);
}

impl VideoMemory for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }

    fn read(&self, at: usize, buf: &mut [u8]) {
        let rest = &self[at.min(self.len())..];
        let available = rest.len().min(buf.len());
        buf[..available].copy_from_slice(&rest[..available]);
        buf[available..].fill(crate::bus::OPEN_BUS);
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        let at = at.min(self.len());
        let rest = &mut self[at..];
        let available = rest.len().min(data.len());
        rest[..available].copy_from_slice(&data[..available]);
    }
}
