# sw_guest_token: issue SignalWire guest tokens from SQL.  "make help" lists
# what can be made.

EXTENSION    = sw_guest_token
EXTVERSION   = $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" $(EXTENSION).control)
MODULE_big   = $(EXTENSION)
OBJS         = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
DATA         = $(wildcard sql/*--*.sql)

# pg_regress talks to the stand-in API, which the launcher starts for each file
REGRESS      = $(patsubst sql/%.sql,%,$(filter-out $(DATA),$(sort $(wildcard sql/*.sql))))
REGRESS_OPTS = --load-extension=$(EXTENSION) \
	--launcher='$(CURDIR)/sandbox/signalwire_sandbox.py --run'
TAP_TESTS    = 1

# They must not call what the server is configured for: each setting is empty, or
# has its default value.  This goes before files, databases and roles.
TEST_SETTINGS = space_name= project_id= api_token= api_token_file= base_url= ca_file= proxy= \
	connect_timeout=5s timeout=10s max_retries=2 max_concurrency=16 read_ahead=off tokens_per_minute=0
ifneq ($(and $(PGSERVICE),$(filter installcheck,$(MAKECMDGOALS))),)
$(error unset PGSERVICE: the options of a service would replace the settings of the tests)
endif
installcheck: override export PGOPTIONS += $(TEST_SETTINGS:%=-c $(EXTENSION).%)
EXTRA_CLEAN  = tmp_check coverage

# libcurl 7.87 is the oldest that can abandon a name look-up
ifeq ($(filter help indent lint coverage dist clean distclean,$(MAKECMDGOALS)),)
ifneq ($(shell pkg-config --exists 'libcurl >= 7.87' && echo yes),yes)
$(error libcurl 7.87 or newer is missing: install libcurl4-openssl-dev (Debian, Ubuntu) or libcurl-devel (Red Hat))
endif
ifneq ($(shell pkg-config --exists json-c && echo yes),yes)
$(error json-c is missing: install libjson-c-dev (Debian, Ubuntu) or json-c-devel (Red Hat))
endif
endif
PG_CPPFLAGS  = $(shell pkg-config --cflags libcurl json-c) -DSGT_VERSION='"$(EXTVERSION)"'
SHLIB_LINK   = $(shell pkg-config --libs libcurl json-c)

PG_CONFIG   ?= pg_config
PGXS        := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h) $(EXTENSION).control

# PGXN wants three numbers
DISTVERSION  = $(shell sed -n 's/^  "version": "\(.*\)",/\1/p' META.json)

.PHONY: help indent lint coverage dist
help:
	@echo 'make               build the library'
	@echo 'make install       install the extension (PG_CONFIG=... chooses the server)'
	@echo 'make installcheck  run the tests against a running server and the installed extension'
	@echo 'make indent        format the C sources'
	@echo 'make lint          check formatting, warnings, scripts'
	@echo 'make coverage      show what the tests reach, in HTML, too'
	@echo 'make dist          archive the last commit for PGXN, as a release'
	@echo 'make clean         remove what was built'
indent:
	script/lint --fix
lint:
	script/lint
coverage:
	script/coverage
dist:
	@case '$(DISTVERSION)' in '$(EXTVERSION)' | '$(EXTVERSION).0') ;; \
		*) echo '$(EXTENSION).control says $(EXTVERSION), META.json $(DISTVERSION)'; exit 1 ;; esac
	@test -z "$$(git status --porcelain)" || { echo 'this is no git checkout whose files are all committed'; exit 1; }
	@grep -q '^## $(EXTVERSION) (20..-..-..)' CHANGELOG.md || { echo 'CHANGELOG.md has no date for $(EXTVERSION)'; exit 1; }
	@head -n 1 debian/changelog | grep -qv UNRELEASED || { echo 'debian/changelog says UNRELEASED'; exit 1; }
	git archive --prefix=$(EXTENSION)-$(DISTVERSION)/ -o $(EXTENSION)-$(DISTVERSION).zip HEAD
