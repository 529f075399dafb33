"""gaiod"""
from gaiod.core.errors import *
from gaiod.core.watcher import *
