# `make install DESTDIR= PREFIX=`: programs, example configuration, systemd units, manual pages, shell completion. Nothing else of
# the machine is changed: no user is made, no service started; docs/operator-guide.md says what comes next.
.PHONY: install
SHARE := $(DESTDIR)$(PREFIX)/share
SYSTEMD := $(DESTDIR)$(PREFIX)/lib
INSTALL_UNITS := $(wildcard systemd/*.service systemd/*.socket systemd/*.target)
INSTALL_MAN := $(wildcard docs/man/*.[1-8])

install: all
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BINS) $(DESTDIR)$(PREFIX)/bin
ifneq ($(cuda_plugin),)
	install -d $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(cuda_plugin) $(DESTDIR)$(PREFIX)/lib
endif
	install -d $(SHARE)/ds/models
	install -m 644 $(wildcard etc/*.yaml) $(SHARE)/ds
	install -m 644 $(wildcard etc/models/*.json) $(SHARE)/ds/models
	install -d $(SHARE)/ds/sim
	install -m 644 $(wildcard etc/sim/*.yaml) $(SHARE)/ds/sim
	install -d $(SYSTEMD)/systemd/system $(SYSTEMD)/sysusers.d $(SYSTEMD)/tmpfiles.d
	for unit in $(INSTALL_UNITS); do \
	    sed 's|@PREFIX@|$(PREFIX)|g' $$unit > $(SYSTEMD)/systemd/system/$${unit##*/} || exit 1; done
	install -m 644 systemd/sysusers.conf $(SYSTEMD)/sysusers.d/ds.conf
	install -m 644 systemd/tmpfiles.conf $(SYSTEMD)/tmpfiles.d/ds.conf
	for page in $(INSTALL_MAN); do \
	    install -D -m 644 $$page $(SHARE)/man/man$${page##*.}/$${page##*/} || exit 1; done
	install -D -m 644 ctl/completion/dsctl.bash $(SHARE)/bash-completion/completions/dsctl
	install -D -m 644 ctl/completion/_dsctl $(SHARE)/zsh/site-functions/_dsctl
	install -D -m 644 ctl/completion/dssim.bash $(SHARE)/bash-completion/completions/dssim
	install -D -m 644 LICENSE $(SHARE)/doc/ds/LICENSE
	install -m 644 README.md ARCHITECTURE.md $(wildcard docs/*.md) $(SHARE)/doc/ds
