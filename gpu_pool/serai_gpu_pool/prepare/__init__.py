"""Opens a model before anybody waits for it: is it sound, what does it cost, in which form is it open soonest?"""

from serai_gpu_pool.prepare.folder import prepared_folder, runtime_tag
from serai_gpu_pool.prepare.outside import Prepared, PrepareError, prepare

__all__ = ["PrepareError", "Prepared", "prepare", "prepared_folder", "runtime_tag"]
