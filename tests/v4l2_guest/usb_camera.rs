//! The USB camera of `tests/common`, plugged into a port of this guest's own kernel.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::process::Command;

pub use crate::common::usb_camera::{FPS, HEIGHT, WIDTH};

use crate::camera::eventually;
use crate::common::usb_camera::{self as device, ATTACH, DEVICE_ID, SPEED};
use crate::vivid::{in_guest, run, settle};

/// The plugged-in camera; unplugged when dropped.
pub struct UsbCamera(device::UsbCamera);

impl UsbCamera {
    /// Plugs it into a port (0 to 7) of the virtual host controller.
    pub fn plug_in(port: u32, serial: &'static str, jpeg: &[u8]) -> Self {
        in_guest();
        run(Command::new("modprobe").arg("vhci-hcd"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (kernels, _) = listener.accept().unwrap();
        let camera = device::UsbCamera::new(ours, serial, jpeg).unwrap();
        let attach = format!("{port} {} {DEVICE_ID} {SPEED}", kernels.as_raw_fd());
        // The port of an unplugged device is free a moment later.
        eventually("the port is free", || fs::write(ATTACH, &attach).ok());
        Self(camera)
    }

    /// Waits until the driver and udev are done with it.
    pub fn wait_until_ready(&self) {
        eventually("uvcvideo has it", || {
            let nodes = fs::read_dir("/sys/bus/usb/drivers/uvcvideo").ok()?;
            let bound = nodes
                .flatten()
                .any(|n| n.file_name().to_string_lossy().ends_with(":1.1"));
            bound.then_some(())
        });
        settle();
    }
}

impl Deref for UsbCamera {
    type Target = device::UsbCamera;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
