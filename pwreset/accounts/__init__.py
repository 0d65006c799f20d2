"""What can happen to an account: its password, links, sessions, login throttle and security events."""

from pwreset.accounts.service import authenticate as authenticate
from pwreset.accounts.service import create as create
from pwreset.accounts.service import find as find
from pwreset.accounts.service import find_by_id as find_by_id
from pwreset.accounts.service import purge_unfinished as purge_unfinished
from pwreset.accounts.service import record_login as record_login
from pwreset.accounts.service import revoke as revoke
from pwreset.accounts.service import revoke_sessions as revoke_sessions
from pwreset.accounts.service import set_active as set_active
from pwreset.accounts.service import set_password as set_password
