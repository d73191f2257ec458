#!/bin/sh
# Configures the packages of a base, whose files lie around it unpacked: run by an engine in a container of them, as
# root, without a network. Only shell and dpkg are sure to work here.
set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes LC_ALL=C.UTF-8
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
packages=/kit-base/packages

# No package may start a service.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

install() { dpkg --force-depends --force-unsafe-io "$@"; }
# Others' scripts need the users, and these folders, before dpkg knows that.
install --install "$packages"/base-passwd_*.deb
install --install "$packages"/base-files_*.deb
install --unpack "$packages"/*.deb
dpkg --force-unsafe-io --configure --pending

rm /usr/sbin/policy-rc.d
# apt's own folders, as apt makes them.
mkdir -p /var/log/apt
for folder in /var/lib/apt/lists/partial /var/cache/apt/archives/partial; do
    mkdir -p "$folder"
    chown 42:0 "$folder"
    chmod 700 "$folder"
done
