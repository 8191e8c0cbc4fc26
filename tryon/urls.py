from django.urls import path

from . import views

app_name = "tryon"

urlpatterns = [
    path("", views.reading(views.service_information), name="service"),
    path("health", views.reading(views.liveness), name="health"),
    path("health/ready", views.reading(views.readiness), name="ready"),
    path("api/v1/create-image", views.CreateImageView.as_view(), name="create-image"),
]
