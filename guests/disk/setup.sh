# Runs when all packages are configured; $1 is the root directory of the new system.
# FILE_SYSTEM is the UUID that its file system will have.
set -e
root=$1

echo "UUID=$FILE_SYSTEM / ext4 errors=remount-ro 0 1" > "$root/etc/fstab"
echo ring3-debian > "$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\tring3-debian\n' > "$root/etc/hosts"
# The password is "ring3" (SHA-512 crypt; a constant salt keeps builds alike).
chroot "$root" usermod -p '$6$ring3disk$tWHUjFKdPxApV.pqAIFbz..qTTDWorlsNFZExDVRSaUqAKjQ6lvdsWCGb84jfhIaWs98GH4uRY2JtgW5pIJw20' root
cp work.c work.py "$root/root/"

# GRUB's modules, and a core image that finds them on the first partition of the disk that it was
# loaded from. The monitor's image builder puts boot.img and core.img into the boot blocks.
grub=$root/boot/grub
mkdir -p "$grub/i386-pc"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst \
   "$root"/usr/lib/grub/i386-pc/boot.img "$grub/i386-pc/"
chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img \
    -p '(,msdos1)/boot/grub' biosdisk part_msdos ext2

# One entry for each kernel. The console is the text screen (nomodeset: no driver switches it to
# graphics) and the first serial port; systemd puts a login on both.
{
    cat <<END
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=5
set default=0
END
    for flavour in 686 686-pae; do
        version=$(basename "$root"/boot/vmlinuz-*[0-9]-$flavour)
        version=${version#vmlinuz-}
        cat <<END
menuentry 'Debian 12, kernel $flavour' {
    linux /boot/vmlinuz-$version root=UUID=$FILE_SYSTEM ro console=tty0 console=ttyS0,115200 nomodeset
    initrd /boot/initrd.img-$version
}
END
    done
} > "$grub/grub.cfg"
