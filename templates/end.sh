# Closes a step: removes what differs between two builds, and gives every file the step wrote one time.
# uv leaves its lock in the environment, open for anyone to write to.
rm -rf /run/kit-apt.conf /run/kit-sources /run/kit-own.txt /run/kit-rest.txt /tmp/* /root/.cache /var/cache/ldconfig/aux-cache \
    /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /opt/kit/venv/.lock
# For a mount of its own, the builder makes a file in /etc before the step and takes it away afterwards.
touch --date="@$SOURCE_DATE_EPOCH" /etc
find / -xdev -newer "$start" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
