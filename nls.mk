# Translations: what a server that was built with them (--enable-nls) makes of
# po/.  PGXS reads this file, and po/LINGUAS from PostgreSQL 16 by itself.

CATALOG_NAME     = sw_guest_token
AVAIL_LANGUAGES  = $(shell cat $(srcdir)/po/LINGUAS)
GETTEXT_FILES    = $(sort $(wildcard src/*.c))
GETTEXT_TRIGGERS = $(BACKEND_COMMON_GETTEXT_TRIGGERS) \
	GUC_check_errmsg GUC_check_errdetail GUC_check_errhint \
	describe_failure:4 refuse_header:1 refuse_setting:2 sgt_set_error:3
GETTEXT_FLAGS    = $(BACKEND_COMMON_GETTEXT_FLAGS) \
	GUC_check_errmsg:1:c-format GUC_check_errdetail:1:c-format \
	GUC_check_errhint:1:c-format sgt_set_error:3:c-format

# The machine that built the server had msgfmt; this one may do without.
ifeq ($(shell $(MSGFMT) --version 2>/dev/null),)
$(warning messages will be in English only, for msgfmt is missing (package gettext))
override LANGUAGES =
endif
